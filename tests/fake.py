"""Tiny data every test can afford: an RLDS data set on disk, its index and config."""

import math
from pathlib import Path

import numpy as np

from vla_jax.data import index as index_module
from vla_jax.data.standardize import DATASETS, DatasetSpec
from vla_jax.data.write import Image, RLDSWriter, Tensor, Text

INSTRUCTIONS = ("open the drawer", "press the button", "reach the red ball")


def features(image_size: int = 8) -> dict:
    """Step features of Meta-World demonstrations."""
    return {
        "observation": {
            "image": Image(image_size, image_size),
            "wrist_image": Image(image_size, image_size),
            "state": Tensor(np.float32, (4,)),
        },
        "action": Tensor(np.float32, (4,)),
        "language_instruction": Text(),
        "reward": Tensor(np.float32),
        "discount": Tensor(np.float32),
        "is_first": Tensor(np.bool_),
        "is_last": Tensor(np.bool_),
        "is_terminal": Tensor(np.bool_),
    }


METADATA = {
    "task": Text(),
    "seed": Tensor(np.int64),
    "attempt": Tensor(np.int64),
    "success": Tensor(np.bool_),
}


def image(episode: int, step: int, camera: str = "primary", size: int = 8):
    """The image of one step, uint8 [size, size, 3]: a color no other step has."""
    frame = np.zeros((size, size, 3), np.uint8)
    frame[..., 0] = 40 + 35 * (episode % 6)
    frame[..., 1] = 10 + 24 * (step % 10)
    frame[..., 2] = 60 if camera == "primary" else 190
    return frame


def action(episode: int, step: int) -> np.ndarray:
    """The raw action of one step, f32 [4]: it tells episode and step."""
    gripper = 1 if step % 2 else -1
    values = [episode / 100, step / 100, (step - episode) / 50, gripper]
    return np.array(values, np.float32)


def episode(index: int, length: int, image_size: int = 8, seed: int = 0):
    """Steps and metadata of one episode, as `RLDSWriter.write` takes them."""
    rng = np.random.default_rng([seed, index])
    task = index % len(INSTRUCTIONS)
    steps = {
        "observation": {
            "image": [image(index, t, "primary", image_size) for t in range(length)],
            "wrist_image": [
                image(index, t, "wrist", image_size) for t in range(length)
            ],
            "state": rng.uniform(-1, 1, (length, 4)).astype(np.float32),
        },
        "action": np.stack([action(index, t) for t in range(length)]),
        "language_instruction": [INSTRUCTIONS[task]] * length,
        "reward": np.arange(length, dtype=np.float32),
        "discount": np.ones(length, np.float32),
        "is_first": np.arange(length) == 0,
        "is_last": np.arange(length) == length - 1,
        "is_terminal": np.arange(length) == length - 1,
    }
    name = f"task-{task}"
    metadata = {"task": name, "seed": seed, "attempt": index, "success": True}
    return steps, metadata


def write_dataset(
    path,
    lengths=(3, 5, 4),
    val_lengths=(2,),
    *,
    image_size: int = 8,
    seed: int = 0,
    shards: int = 2,
    name: str = "fake",
) -> Path:
    """Writes a data set in the Meta-World schema below `path`.

    Train episodes are numbered 0, 1, ... in order, those of "val" after them; `image`
    and `action` tell what each step holds.

    Returns:
        The version folder.
    """
    writer = RLDSWriter(
        path,
        name,
        features(image_size),
        METADATA,
        episodes_per_shard=max(1, math.ceil(len(lengths) / shards)),
    )
    with writer:
        for index, length in enumerate((*lengths, *val_lengths)):
            split = "train" if index < len(lengths) else "val"
            writer.write(split, *episode(index, length, image_size, seed))
    return writer.folder


def open_index(
    folder, spec: DatasetSpec = DATASETS["metaworld"], **options
) -> index_module.Index:
    """Opens the index of a data set without a progress bar."""
    return index_module.open_index(folder, spec, progress=False, **options)


def data_config(*folders, **changes) -> dict:
    """The `data` section of a config on these data sets; `changes` replace its keys."""
    return {
        "datasets": tuple(
            {"path": str(folder), "spec": "metaworld"} for folder in folders
        ),
        "cameras": ("primary", "wrist"),
        "image_size": (8, 8),
        "window": 2,
        "chunk": 3,
        "normalization": {"action": "quantile", "proprio": "mean_std"},
        "text": {"length": 8, "model": ""},
        "batch_size": 2,
        "num_threads": 0,
        "prefetch": 0,
        **changes,
    }
