"""Which keys the `data` section of a config has; refused before any file is opened."""

from collections.abc import Mapping
from typing import Any

from vla_jax.data.mixtures import expand_mixtures
from vla_jax.data.statistics import NORMALIZATIONS
from vla_jax.names import check_keys, did_you_mean

_KEYS = (
    "datasets",
    "cameras",
    "image_size",
    "window",
    "chunk",
    "normalization",
    "text",
    "batch_size",
    "num_threads",
    "prefetch",
)
_OPTIONAL = (
    "depth",
    "camera_matrices",
    "labels",
    "share_statistics",
    "source",
    "stream",
)
_NORMALIZED = ("action", "proprio")
_TEXT = ("length", "model")
_DATASET = ("path", "spec")
_OF_BOTH = ("weight", "per_step", "statistics")
_INDEXED = (*_OF_BOTH, "frame_skip", "target_hz")  # a stream does not skip frames


def check_data_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The section with mixtures replaced by their data sets.

    Args:
      config: as `vla_jax.data.source.open_source` takes it.

    Raises:
      ValueError: a missing or unknown key or normalization, or no data set.
    """
    check_keys(config, (*_KEYS, *_OPTIONAL), "data", required=_KEYS)
    normalization, text = config["normalization"], config["text"]
    check_keys(normalization, _NORMALIZED, "data.normalization", required=_NORMALIZED)
    check_keys(text, (*_TEXT, "truncate", "dropout"), "data.text", required=_TEXT)
    for key, kind in normalization.items():
        if kind not in NORMALIZATIONS:
            raise ValueError(
                f"Unknown data.normalization.{key} {kind!r}; "
                f"{did_you_mean(kind, NORMALIZATIONS)}"
            )
    datasets = expand_mixtures(config["datasets"])
    if not datasets:
        raise ValueError("data.datasets is empty; name at least one data set.")
    known = _INDEXED if config.get("source", "index") == "index" else _OF_BOTH
    for number, dataset in enumerate(datasets):
        place = f"data.datasets[{number}]"
        check_keys(dataset, (*_DATASET, *known), place, required=_DATASET)
    return {**config, "datasets": datasets}
