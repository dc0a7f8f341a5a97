"""Depth of LeRobot data sets: videos of 12-bit codes, or images, to millimetres.

LeRobot 0.6 and later quantize depth to codes from 0 to 4095, evenly in the logarithm of
depth + shift or in depth itself, and state the range beside the feature in
`meta/info.json`. Code 0 is the smallest depth, which also stands for what was missing.
"""

import dataclasses
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

PIXEL_FORMAT = "gray12le"  # of the videos

_LARGEST = 4095
_NAMES = {"depth_min": "low", "depth_max": "high", "shift": "shift", "use_log": "log"}


@dataclasses.dataclass(frozen=True)
class Codes:
    """What the codes of a depth video mean.

    Attributes:
        low, high: metres of codes 0 and 4095.
        shift: metres added before the logarithm.
        log: evenly spaced are the logarithms, not the depths.
    """

    low: float
    high: float
    shift: float
    log: bool

    def millimetres(self, codes: np.ndarray) -> np.ndarray:
        """Codes to depth, uint16 `[h, w]`."""
        share = codes.astype(np.float64) / _LARGEST
        if self.log:
            first, last = np.log(self.low + self.shift), np.log(self.high + self.shift)
            metres = np.exp(first + share * (last - first)) - self.shift
        else:
            metres = self.low + share * (self.high - self.low)
        return np.rint(np.clip(metres * 1000, 0, 65535)).astype(np.uint16)


def is_depth(feature: Mapping) -> bool:
    """Whether a feature is marked as depth, in the present or an older way."""
    infos = (feature.get("info") or {}, feature.get("video_info") or {})
    keys = ("is_depth_map", "video.is_depth_map")
    return any(info.get(key) for info in infos for key in keys)


def read_codes(feature: Mapping, key: str) -> Codes | None:
    """What `meta/info.json` says about the codes of a depth video; None for images.

    Raises:
        ValueError: it says nothing, so that nobody can tell what the pixels mean.
    """
    if feature["dtype"] == "image":
        return None
    info = feature.get("info") or {}
    found = {
        name: info[f"video.{their}"]
        for their, name in _NAMES.items()
        if info.get(f"video.{their}") is not None
    }
    missing = sorted(set(_NAMES.values()) - set(found))
    if missing:
        wanted = [f"video.{their}" for their in _NAMES]
        raise ValueError(
            f"{key} is a depth video, but meta/info.json does not say what its pixels "
            f"mean: features[{key!r}]['info'] lacks some of {wanted}, which LeRobot "
            "writes since 0.6. Add them, or leave the camera out by naming the others "
            "with --cameras."
        )
    return Codes(**found)


def decode_depth_image(data: bytes, feature: Mapping) -> np.ndarray:
    """A depth image of a table to millimetres, uint16 `[h, w]`.

    Integers are millimetres and other numbers metres unless `depth_unit` says so.

    Raises:
        ValueError: something that is no image of one channel.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            depth = np.asarray(image)
    except OSError as error:
        raise ValueError(f"the depth image cannot be read: {error}") from error
    if depth.ndim != 2:
        raise ValueError(
            f"the depth image has the shape {depth.shape}; expected (h, w)"
        )
    whole = np.issubdtype(depth.dtype, np.integer)
    unit = (feature.get("info") or {}).get("depth_unit", "mm" if whole else "m")
    metres = depth.astype(np.float64) * {"mm": 0.001, "m": 1.0}[unit]
    return np.rint(np.clip(metres * 1000, 0, 65535)).astype(np.uint16)
