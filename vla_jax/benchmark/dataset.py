"""A data set to measure the loader on: camera pictures of realistic size in bytes.

Decoding time depends on how much detail a JPEG holds, so flat pictures would say
nothing about real ones. These have a smooth background, moving blocks and sensor noise,
and take as many bytes as camera pictures: about 10 KB at 128 x 128 pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image as PILImage
from tqdm import tqdm

from vla_jax.data.write import Image, RLDSWriter, Tensor, Text

_PICTURES = 64  # different pictures of a copied data set
_QUALITY = 95  # as `RLDSWriter` encodes
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
    rng = np.random.default_rng(seed)
    with RLDSWriter(
        path, "benchmark", _features(image_size), num_shards={"train": 4, "val": 1}
    ) as writer:
        for number in tqdm(range(num_episodes), desc="writing benchmark data"):
            split = "val" if number % 20 == 19 else "train"
            films = [_film(num_steps, image_size, rng) for _ in range(2)]
            writer.write(split, _episode(number, films, rng))
    return writer.folder


def write_copied_dataset(
    path: str | Path,
    *,
    num_episodes: int,
    num_steps: int,
    image_size: int = 128,
    seed: int = 0,
) -> Path:
    """Writes a large data set of the same form quickly, all of it training data.

    Its episodes show the same few pictures again and again, which is the same work for
    whoever reads or decodes them.

    Returns:
        the version folder.
    """
    rng = np.random.default_rng(seed)
    film = [
        simplejpeg.encode_jpeg(picture, quality=_QUALITY)
        for picture in _film(_PICTURES, image_size, rng)
    ]
    with RLDSWriter(path, "benchmark", _features(image_size)) as writer:
        for number in tqdm(range(num_episodes), desc="writing benchmark data"):
            shown = (np.arange(num_steps) + number) % _PICTURES
            films = [[film[i] for i in order] for order in (shown, shown[::-1])]
            writer.write("train", _episode(number, films, rng))
    return writer.folder


def _features(image_size: int) -> dict:
    return {
        "observation": {
            "image": Image(image_size, image_size),
            "wrist_image": Image(image_size, image_size),
            "state": Tensor(np.float32, (4,)),
        },
        "action": Tensor(np.float32, (4,)),
        "language_instruction": Text(),
    }


def _episode(number: int, films: Sequence[list], rng) -> dict:
    """Steps with the pictures of both cameras."""
    num_steps = len(films[0])
    position = np.cumsum(rng.normal(0, 0.02, (num_steps, 4)), axis=0)
    return {
        "observation": {
            "image": films[0],
            "wrist_image": films[1],
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
