"""Converts a source to RLDS, one episode at a time, and continues after a kill.

Every episode is staged in a file of its own as soon as it is converted; when all are
there, they are put into shards in one step. What was staged for other settings, or for
files that have changed since, is thrown away.
"""

import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image as PILImage
from tqdm import tqdm

from vla_jax.data.convert.layout import (
    EpisodeKey,
    Layout,
    SourceEpisode,
    feature_name,
)
from vla_jax.data.convert.spec_file import write_spec_file
from vla_jax.data.features import IMAGE_MAGIC
from vla_jax.data.image import decode
from vla_jax.data.image import resize as resize_image
from vla_jax.data.write import Image, RLDSWriter, Tensor, Text, encode_episode

VERSION = "1.0.0"
JPEG_QUALITY = 95
_METADATA = {"source": Text()}


def convert(
    layout: Layout,
    out: str | os.PathLike,
    name: str,
    *,
    resize: tuple[int, int] | None = None,
    rotate: bool = False,
    num_threads: int = 1,
    progress: bool = True,
) -> tuple[Path, Path]:
    """Converts a source, or continues a conversion that was interrupted.

    Args:
        layout: the source.
        out: folder that will hold `<name>/1.0.0/`.
        name: of the data set, lower case with underscores.
        resize: height and width of the pictures; as they are when None.
        rotate: turn the pictures by 180 degrees, as LIBERO's are for training.
        num_threads: episodes converted at a time; the result does not depend on it.
        progress: show a progress bar.

    Returns:
        The version folder, and the file with its `DatasetSpec`, `my_dataset.py` beside
        it; one that exists is left as it is.

    Raises:
        ValueError: when the folder exists, or an episode cannot be converted, naming
            it; what was converted is kept.
    """
    out = Path(out).expanduser()
    if not layout.episodes:
        raise ValueError("The source holds no episodes.")
    features = step_features(layout, resize)
    # Refuses a bad name and a folder that exists before any work is done.
    RLDSWriter(out, name, features, _METADATA, version=VERSION).abort()
    staging = out / f".{name}.converting-{_digest(layout, resize, rotate)}"
    for stale in out.glob(f".{name}.converting-*"):
        if stale != staging:
            shutil.rmtree(stale)
    staging.mkdir(parents=True, exist_ok=True)
    files = [
        staging / f"{number:06d}.episode" for number in range(len(layout.episodes))
    ]

    def encode(image: bytes | np.ndarray) -> bytes:
        return encode_picture(image, resize=resize, rotate=rotate)

    def change(depth: np.ndarray) -> np.ndarray:
        return change_depth(depth, resize=resize, rotate=rotate)

    _stage(layout, features, (encode, change), files, num_threads, progress)
    description = layout.description
    with RLDSWriter(
        out, name, features, _METADATA, version=VERSION, description=description
    ) as writer:
        for key, file in zip(layout.episodes, files, strict=True):
            writer.write_encoded(key.split, file.read_bytes())
    shutil.rmtree(staging)
    return writer.folder, write_spec_file(layout, writer.folder, name)


def step_features(layout: Layout, resize: tuple[int, int] | None) -> dict:
    """Features of a step of the converted data set."""
    images = {
        f"image_{feature_name(camera)}": Image(*(resize or size))
        for camera, size in layout.image_size.items()
    }
    depth = {
        f"depth_{feature_name(camera)}": Image(*(resize or size), 1, "png", np.uint16)
        for camera, size in layout.depth_size.items()
    }
    state = Tensor(np.float32, (layout.state_dim,))
    return {
        "observation": {"state": state, **images, **depth},
        "action": Tensor(np.float32, (len(layout.action),)),
        "language_instruction": Text(),
        "reward": Tensor(np.float32),
        "discount": Tensor(np.float32),
        "is_first": Tensor(np.bool_),
        "is_last": Tensor(np.bool_),
        "is_terminal": Tensor(np.bool_),
    }


def encode_picture(
    image: bytes | np.ndarray, *, resize: tuple[int, int] | None, rotate: bool
) -> bytes:
    """A color JPEG of a picture; one that needs no change is kept byte by byte.

    Args:
        image: encoded, or uint8 `[h, w, 3]`.
        resize: height and width; as it is when None.
        rotate: turn it by 180 degrees.

    Raises:
        ValueError: for bytes that are no picture.
    """
    if isinstance(image, bytes):
        if image.startswith(IMAGE_MAGIC["jpeg"]) and not rotate:
            with PILImage.open(io.BytesIO(image)) as header:
                size, is_color = (header.height, header.width), header.mode == "RGB"
            if is_color and resize in (None, size):
                return image
        image = decode(image)
    if rotate:
        image = image[::-1, ::-1]
    image = np.ascontiguousarray(image)
    if resize is not None:
        image = resize_image(image, *resize)
    return simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY)


def change_depth(
    depth: np.ndarray, *, resize: tuple[int, int] | None, rotate: bool
) -> np.ndarray:
    """A depth image as it is to be stored, uint16 `[h, w, 1]` from `[h, w]`.

    Sizes change by taking the nearest pixel: what is between two depths is neither.
    """
    if rotate:
        depth = depth[::-1, ::-1]
    if resize is not None:
        rows, columns = (
            ((np.arange(size) + 0.5) * have / size).astype(int)
            for size, have in zip(resize, depth.shape, strict=True)
        )
        depth = depth[rows[:, None], columns]
    return depth[..., None]


def _stage(
    layout: Layout,
    features: dict,
    changes: tuple[Callable, Callable],
    files: list[Path],
    num_threads: int,
    progress: bool,
):
    """Converts the episodes that have no file yet, each into its own."""

    def stage(number: int):
        payload = _convert_episode(layout, layout.episodes[number], features, changes)
        temporary = files[number].with_suffix(".partial")
        temporary.write_bytes(payload)
        os.replace(temporary, files[number])

    missing = [number for number, file in enumerate(files) if not file.exists()]
    with (
        tqdm(
            total=len(files),
            initial=len(files) - len(missing),
            unit="episode",
            disable=not progress,
        ) as bar,
        # Decoding and encoding pictures runs without the interpreter lock.
        ThreadPoolExecutor(num_threads, "convert") as pool,
    ):
        futures = [pool.submit(stage, number) for number in missing]
        try:
            for future in as_completed(futures):
                future.result()
                bar.update()
        finally:
            pool.shutdown(cancel_futures=True)


def _convert_episode(
    layout: Layout, key: EpisodeKey, features: dict, changes: tuple[Callable, Callable]
) -> bytes:
    try:
        steps = _steps(layout.read(key), *changes)
        place = str(dataclasses.replace(key, file=Path(key.file).name))
        return encode_episode(features, _METADATA, steps, {"source": place})
    except (ValueError, OSError, KeyError) as error:
        hint = ""
        if "image of" in str(error):
            hint = " Pictures of several sizes need --resize=H,W."
        raise ValueError(f"Episode {key} cannot be converted: {error}{hint}") from error


def _steps(episode: SourceEpisode, encode: Callable, change: Callable) -> dict:
    """The steps of an episode as the writer takes them."""
    num_steps = len(episode.action)
    last = np.arange(num_steps) == num_steps - 1
    images = {
        f"image_{feature_name(camera)}": [encode(image) for image in images]
        for camera, images in episode.images.items()
    }
    depth = {
        f"depth_{feature_name(camera)}": [change(image) for image in images]
        for camera, images in episode.depth.items()
    }
    state = np.asarray(episode.state, np.float32)
    return {
        "observation": {"state": state, **images, **depth},
        "action": np.asarray(episode.action, np.float32),
        "language_instruction": list(episode.language),
        "reward": np.asarray(episode.reward, np.float32),
        "discount": np.ones(num_steps, np.float32),
        "is_first": np.arange(num_steps) == 0,
        "is_last": last,
        "is_terminal": last & episode.is_terminal,
    }


def _digest(layout: Layout, resize: tuple[int, int] | None, rotate: bool) -> str:
    """Changes with the settings, the episodes and the files they are in."""
    content = {
        "episodes": [str(key) for key in layout.episodes],
        "files": _sizes(key.file for key in layout.episodes),
        "layout": [
            {camera: list(size) for camera, size in layout.image_size.items()},
            {camera: list(size) for camera, size in layout.depth_size.items()},
            layout.state_dim,
            layout.action,
            layout.description,
            layout.settings,
        ],
        "pictures": [resize, rotate],
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sizes(files: Iterable[str]) -> dict[str, list[int]]:
    stats = {file: os.stat(file) for file in sorted(set(files))}
    return {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}
