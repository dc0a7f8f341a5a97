"""What demonstrations from simulators have besides the fields of every data set."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vla_jax.data.rlds import RawEpisode


def optional(fields: Mapping[str, Any], key: str) -> Any | None:
    """The field, or None where it was not recorded."""
    # Not `get`: what an episode lacks is an error everywhere else.
    if key in fields:
        return fields[key]
    return None


def camera_matrices(
    raw: RawEpisode, cameras: Mapping[str, str]
) -> dict[str, dict[str, np.ndarray]]:
    """Camera to `intrinsics` [T, 3, 3] and `extrinsics` [T, 4, 4], where recorded.

    Args:
        raw: an episode; the matrices of a picture `x` are `x_intrinsics` and
            `x_extrinsics`.
        cameras: standard name to the feature of the picture.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, feature in cameras.items():
        for key in ("intrinsics", "extrinsics"):
            matrix = optional(raw.arrays, f"{feature}_{key}")
            if matrix is not None:
                found.setdefault(name, {})[key] = matrix
    return found
