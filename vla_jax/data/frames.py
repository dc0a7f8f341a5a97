"""Frames of a batch: where their images and depth images lie, and how they get in.

Observations and labels list what they need with `find_frames`; `decode_frames` reads
and decodes it, in any number of threads, straight into the memory of the batch.
"""

from typing import Any, NamedTuple

import numpy as np

from vla_jax.data.image import decode_and_resize, decode_depth


class Frame(NamedTuple):
    """One image to decode.

    Attributes:
        index: of the data set that has it.
        kind: "image" or "depth".
        camera: standard name.
        step: number within the data set.
        out: uint8 [h w 3] of an image, float32 [h w] of a depth image.
    """

    index: Any
    kind: str
    camera: str
    step: int
    out: np.ndarray


def find_frames(
    index, kind: str, camera: str, step: np.ndarray, slot: np.ndarray, out: np.ndarray
) -> tuple[np.ndarray, list[Frame]]:
    """Lists the frames of one camera; those that do not exist become zeros.

    Args:
        index: of the data set.
        kind: "image" or "depth".
        camera: standard name; the data set need not have it.
        step: int64 [n], numbers within the data set.
        slot: int64 [n], where in `out` each of them belongs.
        out: [m h w 3] or [m h w], memory of the batch.

    Returns:
        bool [n], which of the frames exist, and those to decode.
    """
    spans = index.image_spans if kind == "image" else index.depth_spans
    if camera in spans:
        exists = spans[camera][step, 2] > 0
    else:
        exists = np.zeros(len(step), bool)
    if not exists.all():
        out[slot[~exists]] = 0
    pairs = zip(step[exists].tolist(), slot[exists].tolist(), strict=True)
    return exists, [Frame(index, kind, camera, s, out[place]) for s, place in pairs]


def decode_frames(frames: list[Frame]) -> None:
    """Reads, decodes and resizes frames.

    Raises:
        ValueError: an image that cannot be decoded, naming where it is.
    """
    remote = _read_remote(frames)
    for place, (index, kind, camera, step, out) in enumerate(frames):
        try:
            if place in remote:
                data = remote.pop(place)
            elif kind == "image":
                data = index.read_image(camera, step)
            else:
                data = index.read_depth(camera, step)
            if kind == "image":
                decode_and_resize(data, out)
            else:
                feature = index.depth_features[camera]
                scale = index.spec.depth_scale.get(camera)
                decode_depth(data, feature, out, scale)
        except ValueError as error:
            episode = int(index.episode[step])
            raise ValueError(
                f"The {'depth ' * (kind == 'depth')}image of data set "
                f"'{index.spec.name}', camera '{camera}', episode {episode}, step "
                f"{step - index.first_step[episode]} cannot be decoded: {error}. "
                "launch/index.py --validate checks a data set."
            ) from error


def _read_remote(frames: list[Frame]) -> dict[int, bytes]:
    """What lies behind URLs, read together, by place in `frames`."""
    places: dict[int, list[int]] = {}
    for place, frame in enumerate(frames):
        if frame.index.is_remote:
            places.setdefault(id(frame.index), []).append(place)
    found: dict[int, bytes] = {}
    for some in places.values():
        wanted = [(frames[i].kind, frames[i].camera, frames[i].step) for i in some]
        data = frames[some[0]].index.read_frames(wanted)
        found |= zip(some, data, strict=True)
    return found


def scale_intrinsics(
    intrinsics: np.ndarray, size: tuple[int, int], new_size: tuple[int, int]
) -> np.ndarray:
    """Intrinsics [... 3 3] after resizing an image, sizes as height and width.

    Pixel coordinates begin at the corner of the first pixel, so they all scale alike.
    """
    (height, width), (new_height, new_width) = size, new_size
    scale = np.array([new_width / width, new_height / height, 1.0], np.float32)
    return intrinsics * scale[:, None]
