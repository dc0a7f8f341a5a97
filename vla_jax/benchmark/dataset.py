"""A data set to measure the loader on: camera pictures of realistic size in bytes.

Decoding time depends on how much detail a JPEG holds, so flat pictures would say
nothing about real ones. These have a smooth background, moving blocks and sensor noise,
and take as many bytes as camera pictures: about 10 KB at 128 x 128 pixels.
"""

from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from tqdm import tqdm

from vla_jax.data.write import Image, RLDSWriter, Tensor, Text

_INSTRUCTIONS = ("open the drawer", "press the button", "push the puck to the goal")


def write_benchmark_dataset(
    path: str | Path,
    *,
    num_episodes: int = 40,
    num_steps: int = 100,
    image_size: int = 128,
    seed: int = 0,
) -> Path:
    """Writes episodes of two cameras in the form of the "metaworld" data set.

    One episode in twenty goes to the split "val".

    Returns:
        the version folder.
    """
    features = {
        "observation": {
            "image": Image(image_size, image_size),
            "wrist_image": Image(image_size, image_size),
            "state": Tensor(np.float32, (4,)),
        },
        "action": Tensor(np.float32, (4,)),
        "language_instruction": Text(),
    }
    rng = np.random.default_rng(seed)
    with RLDSWriter(
        path, "benchmark", features, num_shards={"train": 4, "val": 1}
    ) as writer:
        for number in tqdm(range(num_episodes), desc="writing benchmark data"):
            split = "val" if number % 20 == 19 else "train"
            writer.write(split, _episode(number, num_steps, image_size, rng))
    return writer.folder


def _episode(number: int, num_steps: int, size: int, rng) -> dict:
    position = np.cumsum(rng.normal(0, 0.02, (num_steps, 4)), axis=0)
    return {
        "observation": {
            "image": _film(num_steps, size, rng),
            "wrist_image": _film(num_steps, size, rng),
            "state": position.astype(np.float32),
        },
        "action": rng.uniform(-1, 1, (num_steps, 4)).astype(np.float32),
        "language_instruction": [_INSTRUCTIONS[number % 3]] * num_steps,
    }


def _film(num_steps: int, size: int, rng) -> list[np.ndarray]:
    """Pictures of one camera: a still background, blocks that move, fresh noise."""
    coarse = PILImage.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    background = np.asarray(coarse.resize((size, size), PILImage.Resampling.BICUBIC))
    corners = rng.uniform(0, 0.7, (5, 2))
    speeds = rng.normal(0, 0.01, (5, 2))
    colors = rng.integers(0, 256, (5, 3))
    pictures = []
    for step in range(num_steps):
        picture = background.astype(np.int16)
        for corner, speed, color in zip(corners, speeds, colors, strict=True):
            y, x = ((corner + step * speed) % 0.8 * size).astype(int)
            picture[y : y + size // 5, x : x + size // 5] = color
        picture += rng.integers(-4, 5, picture.shape, dtype=np.int16)
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    return pictures
