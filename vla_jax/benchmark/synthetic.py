"""Batches and descriptions of data that a config asks for, without any data on disk.

Sizes come from the config and from the entries of its data sets. Values are random and
everything is real (masks are True), because time does not depend on them. What only
recordings tell is assumed: `proprio` is as long as the action unless the caller knows
better, and there is one object.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vla_jax.data.labels import Samples, build_labels
from vla_jax.data.mixtures import MIXTURES
from vla_jax.data.spec import DatasetSpec
from vla_jax.data.standardize import resolve_spec
from vla_jax.data.statistics import Statistics
from vla_jax.data.text import Tokenizer

_MATRICES = {"intrinsics": 3, "extrinsics": 4}


class _Recorded(NamedTuple):
    """What labels read of an index."""

    spec: DatasetSpec
    cameras: tuple[str, ...]
    pose: np.ndarray
    objects: np.ndarray
    next_event: np.ndarray


def make_metadata(data: Mapping[str, Any], *, proprio_dim: int = 0) -> dict:
    """What `Source.metadata()` would say.

    Args:
        data: the `data` section of a config.
        proprio_dim: size of `proprio`; 0: that of the action.

    Raises:
        ValueError: an unknown data set.
    """
    specs = _specs(data)
    widest = max(len(spec.action) for spec in specs)
    cameras, depth = list(data["cameras"]), list(data.get("depth", ()))
    names = [spec.name for spec in specs]
    metadata = {
        "datasets": [
            {
                "name": spec.name,
                "weight": 1.0,
                "cameras": cameras,
                "action": list(spec.action),
                "control_hz": spec.control_hz,
                "num_episodes": 1,
                "num_steps": 1,
                "action_dim": len(spec.action),
                "proprio_dim": proprio_dim or len(spec.action),
                "statistics": {
                    "action": _statistics(len(spec.action)),
                    "proprio": _statistics(proprio_dim or len(spec.action)),
                },
            }
            for spec in specs
        ],
        "cameras": cameras,
        "image_size": list(data["image_size"]),
        "window": data["window"],
        "chunk": data["chunk"],
        "action_dim": widest,
        "proprio_dim": proprio_dim or widest,
        "normalization": dict(data["normalization"]),
        "text_length": data["text"]["length"],
        "text_truncate": data["text"].get("truncate", False),
        "vocab_size": Tokenizer.from_file(data["text"]["model"]).vocab_size,
    }
    if depth:
        metadata |= {"depth": depth, "depth_cameras": dict.fromkeys(names, depth)}
    if data.get("camera_matrices", False):
        matrices = {c: sorted(_MATRICES) for c in dict.fromkeys(cameras + depth)}
        metadata["camera_matrices"] = dict.fromkeys(names, matrices)
    return metadata


def make_batch(
    data: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """A batch as the loader gives it: nested dicts of NumPy arrays.

    Args:
        data: the `data` section of a config.
        metadata: of `make_metadata`.
        batch_size: rows; those of the config when None.
        seed: of the values.
    """
    b, t = batch_size or data["batch_size"], data["window"]
    size, chunk = tuple(data["image_size"]), data["chunk"]
    words = (b, data["text"]["length"])
    depth = tuple(data.get("depth", ()))
    cameras = tuple(data["cameras"])
    observation: dict[str, Any] = {
        "image": {c: np.zeros((b, t, *size, 3), np.uint8) for c in cameras},
        "image_mask": {c: np.zeros((b, t), bool) for c in cameras},
        "proprio": np.zeros((b, t, metadata["proprio_dim"]), np.float32),
        "frame_mask": np.zeros((b, t), bool),
    }
    if depth:
        observation["depth"] = {c: np.zeros((b, t, *size), np.float32) for c in depth}
    if data.get("camera_matrices", False):
        observation["camera"] = {
            camera: {
                kind: np.zeros((b, t, n, n), np.float32)
                for kind, n in _MATRICES.items()
            }
            for camera in dict.fromkeys(cameras + depth)
        }
    batch = {
        "observation": observation,
        "task": {
            "tokens": np.zeros(words, np.int32),
            "token_mask": np.zeros(words, bool),
        },
        "action": np.zeros((b, chunk, metadata["action_dim"]), np.float32),
        "action_mask": np.zeros((b, chunk, metadata["action_dim"]), bool),
        "labels": _labels(data, b),
    }
    batch = _fill(batch, np.random.default_rng(seed))
    return {**batch, "dataset": np.zeros(b, np.int32)}


def _labels(data: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """The arrays of every label, from its own function, which finds no samples."""
    recorded = [
        _Recorded(
            spec=spec,
            cameras=tuple(data["cameras"]),
            pose=np.zeros((1, 7), np.float32),
            objects=np.zeros((1, 7), np.float32),
            next_event=np.zeros(1, np.int32),
        )
        for spec in _specs(data)
    ]
    samples = Samples(
        indexes=recorded,
        groups=(),
        size=batch_size,
        chunk=data["chunk"],
        image_size=tuple(data["image_size"]),
        seed=0,
        empty=lambda shape: np.zeros(shape, np.uint8),
        skips=(1,) * len(recorded),
    )
    labels = build_labels(data.get("labels", ()), recorded, data["chunk"])
    return {name: label(samples)[0] for name, label in labels.items()}


def _fill(value: Any, rng: np.random.Generator) -> Any:
    """Random pixels and numbers, masks that are True, and 1 for other integers."""
    if isinstance(value, dict):
        return {key: _fill(part, rng) for key, part in value.items()}
    if value.dtype == np.uint8:
        return rng.integers(0, 256, value.shape, np.uint8)
    if value.dtype.kind == "f":
        return rng.standard_normal(value.shape, np.float32)
    return np.ones_like(value)


def _specs(data: Mapping[str, Any]) -> Sequence[DatasetSpec]:
    names: list[str] = []
    for entry in data["datasets"]:
        if "mixture" in entry:
            names += [name for name, _ in MIXTURES[entry["mixture"]]]
        else:
            names.append(entry["spec"])
    return [resolve_spec(name) for name in names]


def _statistics(dim: int) -> dict:
    zeros, ones = np.zeros(dim), np.ones(dim)
    return Statistics(
        count=1,
        mean=zeros,
        std=ones,
        min=-ones,
        max=ones,
        q01=-ones,
        q99=ones,
        tiny=np.zeros(dim, bool),
        quantile_error=0.0,
    ).to_json()
