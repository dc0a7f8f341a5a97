"""Frames of a batch: where their images and depth images lie, and how they get in.

Observations and labels list what they need with `find_frames`; `decode_frames` reads
and decodes it, in any number of threads, straight into the memory of the batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vla_jax.data.image import decode_and_resize, decode_depth


class Frames(NamedTuple):
    """Images of one camera of one data set to decode, n of them.

    Attributes:
        index: of the data set that has them.
        kind: "image" or "depth".
        camera: standard name.
        step: int64 [n], numbers within the data set.
        span: int64 [n, 3], where they lie: shard, offset and length.
        slot: int64 [n], where in `out` each of them belongs.
        out: uint8 [m h w 3] of images, float32 [m h w] of depth images.
    """

    index: Any
    kind: str
    camera: str
    step: np.ndarray
    span: np.ndarray
    slot: np.ndarray
    out: np.ndarray

    def share(self, number: int, num_shares: int) -> "Frames":
        """Every `num_shares`-th of the images, from `number` on."""
        chosen = slice(number, None, num_shares)
        step, span, slot = self.step[chosen], self.span[chosen], self.slot[chosen]
        return self._replace(step=step, span=span, slot=slot)


def find_frames(
    index, kind: str, camera: str, step: np.ndarray, slot: np.ndarray, out: np.ndarray
) -> tuple[np.ndarray, list[Frames]]:
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
    if camera not in spans:
        out[slot] = 0
        return np.zeros(len(step), bool), []
    span = spans[camera][step]
    exists = span[:, 2] > 0
    if exists.all():
        return exists, [Frames(index, kind, camera, step, span, slot, out)]
    out[slot[~exists]] = 0
    step, span, slot = step[exists], span[exists], slot[exists]
    return exists, [Frames(index, kind, camera, step, span, slot, out)]


def decode_frames(frames: Sequence[Frames]) -> None:
    """Reads, decodes and resizes frames.

    Raises:
        ValueError: an image that cannot be decoded, naming where it is.
    """
    remote = _read_remote(frames)
    for place, some in enumerate(frames):
        _decode(some, remote.pop(place, None))


def _decode(frames: Frames, encoded: list[bytes] | None) -> None:
    """Decodes frames, reading them one by one unless they have been read."""
    index, kind, camera, steps, spans, slots, out = frames
    if kind == "depth":
        feature = index.depth_features[camera]
        scale = index.spec.depth_scale.get(camera)
    places = zip(steps.tolist(), spans.tolist(), slots.tolist(), strict=True)
    for number, (step, span, slot) in enumerate(places):
        try:
            if encoded is None:
                data = index.read_span(camera, step, span)
            else:
                data = encoded[number]
            if kind == "image":
                decode_and_resize(data, out[slot])
            else:
                decode_depth(data, feature, out[slot], scale)
        except ValueError as error:
            episode = int(index.episode[step])
            raise ValueError(
                f"The {'depth ' * (kind == 'depth')}image of data set "
                f"'{index.spec.name}', camera '{camera}', episode {episode}, step "
                f"{step - index.first_step[episode]} cannot be decoded: {error}. "
                "launch/index.py --validate checks a data set."
            ) from error


def _read_remote(frames: Sequence[Frames]) -> dict[int, list[bytes]]:
    """What lies behind URLs, all cameras together, by place in `frames`."""
    found: dict[int, list[bytes]] = {}
    places: dict[int, list[int]] = {}
    for place, some in enumerate(frames):
        if some.index.is_remote:
            places.setdefault(id(some.index), []).append(place)
    for some in places.values():
        spans = np.concatenate([frames[place].span for place in some])
        data = iter(frames[some[0]].index.read_spans(spans))
        for place in some:
            found[place] = [next(data) for _ in frames[place].step]
    return found
