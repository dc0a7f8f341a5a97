"""A tiny data set: a bright square moves, and fourteen joints follow it."""

from pathlib import Path

import numpy as np

from vla_jax.data.standardize import DatasetSpec
from vla_jax.data.write import Image, RLDSWriter, Tensor

HEIGHT, WIDTH = 32, 48
NAME = f"{__file__}:FAKE_ALOHA"


def standardize(raw) -> dict:
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": raw.arrays["steps/action"],
        "language": ["follow the square"],
    }


FAKE_ALOHA = DatasetSpec(
    name="fake_aloha",
    cameras={camera: f"steps/observation/{camera}" for camera in ("top", "angle")},
    action=("absolute",) * 14,
    control_hz=50.0,
    standardize=standardize,
)


def square(step: int, episode: int) -> tuple[int, int]:
    """Column and row of the square's corner: it goes right and down."""
    return (3 * step + 5 * episode) % (WIDTH - 6), (2 * step) % (HEIGHT - 6)


def write(folder, lengths=(12, 9), val_lengths=(10,)) -> Path:
    """Writes the episodes and returns the version folder."""
    features = {
        "observation": {
            **{c: Image(HEIGHT, WIDTH) for c in ("top", "angle")},
            "state": Tensor(np.float32, (14,)),
        },
        "action": Tensor(np.float32, (14,)),
    }
    writer = RLDSWriter(folder, "fake_aloha", features, {}, episodes_per_shard=4)
    with writer:
        for number, length in enumerate((*lengths, *val_lengths)):
            split = "train" if number < len(lengths) else "val"
            writer.write(split, _steps(number, length), {})
    return writer.folder


def _steps(episode: int, length: int) -> dict:
    images = np.full((length, HEIGHT, WIDTH, 3), 40, np.uint8)
    joints = np.zeros((length, 14), np.float32)
    for step in range(length):
        x, y = square(step, episode)
        images[step, y : y + 6, x : x + 6] = (230, 60, 60)
        joints[step] = np.linspace(x / WIDTH, y / HEIGHT, 14)
    return {
        "observation": {
            "top": list(images),
            "angle": list(images[:, ::-1]),
            "state": joints,
        },
        "action": joints,
    }
