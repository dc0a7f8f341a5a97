"""What training knows and a running policy does not: labels of sampled steps.

A config chooses them by name, `data.labels=(dict(name="gripper_event"),)`; the other
keys are the function's keyword arguments. A function gets all samples of a batch and
gives one entry of `batch["labels"]`, a dict of arrays [b ...] under its own name, and
the images that are to be decoded into it. To add a label, write such a function and
put it into `LABELS`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vla_jax.data.frames import Frames, find_frames
from vla_jax.data.sampler import hash_numbers, permute
from vla_jax.names import check_keys, did_you_mean

_HOLD = 3  # frames that a gripper command must last to count as a change
# Keep draws of the same seed apart.
_OFFSETS = 0x6F6666
_GOALS = 0x676F616C


class Samples(NamedTuple):
    """The samples of a batch.

    Attributes:
        indexes: of all data sets, whether the batch has samples of them or not.
        groups: of every data set in the batch its number in `indexes`, the rows that
            its samples fill, int [n], and their `vla_jax.data.source.Place`.
        size: number of rows of the batch, b.
        chunk: actions that the policy predicts.
        image_size: height and width in pixels.
        seed: of what is random; a draw depends on it and on the step, not on the row.
        empty: where the uint8 arrays for images come from.
        skips: per data set, recorded steps per step of the policy. Offsets are given
            and told in steps of the policy.
    """

    indexes: Sequence[Any]
    groups: Sequence[tuple[int, np.ndarray, Any]]
    size: int
    chunk: int
    image_size: tuple[int, int]
    seed: int
    empty: Callable[[tuple[int, ...]], np.ndarray]
    skips: Sequence[int]


Label = Callable[[Samples], tuple[dict[str, Any], list[Frames]]]


def gripper_event(samples: Samples) -> tuple[dict, list[Frames]]:
    """The next change of the gripper at or after each step, see `steps_to_event`.

    Returns:
        `offset` int32 [b], steps from now to the event, and `mask` bool [b], False
        after the last event of an episode; `pose` float32 [b 7], of the end effector
        at the event (metres and xyzw quaternion, robot base frame), and `pose_mask`
        bool [b]. Zeros where masked.
    """
    if all(index.next_event is None for index in samples.indexes):
        raise ValueError(
            "Label 'gripper_event' needs a data set with a gripper; the actions are "
            f"{[index.spec.action for index in samples.indexes]}."
        )
    label = {
        "offset": np.zeros(samples.size, np.int32),
        "mask": np.zeros(samples.size, bool),
        "pose": np.zeros((samples.size, 7), np.float32),
        "pose_mask": np.zeros(samples.size, bool),
    }
    for number, rows, place in samples.groups:
        index = samples.indexes[number]
        if index.next_event is None:
            continue
        step = place.first_step + place.step
        offset = index.next_event[step]
        real = offset >= 0
        label["offset"][rows] = np.maximum(offset, 0) // samples.skips[number]
        label["mask"][rows] = real
        if index.pose is not None:
            label["pose"][rows[real]] = index.pose[(step + offset)[real]]
            label["pose_mask"][rows] = real
    return label, []


def pose(samples: Samples, *, offsets: Sequence[int] = (0,)) -> tuple[dict, list]:
    """Poses of the end effector, now and at other offsets in steps.

    Returns:
        `pose` float32 [b f 7] (metres and xyzw quaternion, robot base frame) and `mask`
        bool [b f], False past the end of an episode and without poses; zeros there.
    """
    return _poses("pose", "a pose", samples, offsets)


def objects(samples: Samples, *, offsets: Sequence[int] = (0,)) -> tuple[dict, list]:
    """Poses of the objects of a task, now and at other offsets in steps.

    Returns:
        `pose` float32 [b f o 7] (metres and xyzw quaternion, robot base frame) and
        `mask` bool [b f o], False past the end of an episode and for objects that are
        not there; zeros there.
    """
    label, found = _poses("objects", "poses of objects", samples, offsets)
    *leading, width = label["pose"].shape
    pose = label["pose"].reshape(*leading, width // 7, 7)
    # An object that is not there is stored as zeros; no rotation is zero.
    return {"pose": pose, "mask": pose[..., 3:].any(-1)}, found


def _poses(
    name: str, what: str, samples: Samples, offsets: Sequence[int]
) -> tuple[dict, list]:
    """Rows of the array `name` of the indexes, float32 [b f k], and their mask."""
    offsets = _check_offsets(name, offsets, least=0)
    widths = [getattr(i, name).shape[1] for i in samples.indexes if _has(i, name)]
    if not widths:
        raise ValueError(
            f"Label {name!r} needs a data set whose standardize function gives {what}; "
            f"none of {[index.spec.name for index in samples.indexes]} does."
        )
    # Data sets may differ in the number of objects: zeros where one has fewer.
    label = {
        "pose": np.zeros((samples.size, len(offsets), max(widths)), np.float32),
        "mask": np.zeros((samples.size, len(offsets)), bool),
    }
    for number, rows, place in samples.groups:
        index = samples.indexes[number]
        if not _has(index, name):
            continue
        ahead = place.step[:, None] + offsets * samples.skips[number]
        real = ahead < place.length[:, None]
        row, column = np.nonzero(real)
        values = getattr(index, name)[place.first_step[row] + ahead[row, column]]
        label["pose"][rows[row], column, : values.shape[1]] = values
        label["mask"][rows] = real
    return label, []


def _has(index: Any, name: str) -> bool:
    return getattr(index, name) is not None


def future_frames(
    samples: Samples, *, offsets: Sequence[int] | str, cameras: Sequence[str]
) -> tuple[dict, list[Frames]]:
    """Images of later steps, for example to align predicted points with.

    Args:
        samples: what to label.
        offsets: steps after the present one; or "random:4" for four different ones of
            1 .. chunk - 1, ascending, chosen anew for every sample.
        cameras: standard names.

    Returns:
        `offset` int32 [b f]; `mask` bool [b f], False past the end of an episode;
        `image`, camera to uint8 [b f h w 3], and `image_mask`, camera to bool [b f],
        which is also False where a step has no image. Black where masked.
    """
    _check_cameras("future_frames", cameras, samples)
    is_random = isinstance(offsets, str)
    if is_random:
        f = _count_random(offsets, samples.chunk)
    else:
        fixed = _check_offsets("future_frames", offsets, least=1)
        f = len(fixed)
    b, size = samples.size, samples.image_size
    label = {
        "offset": np.zeros((b, f), np.int32),
        "mask": np.zeros((b, f), bool),
        "image": {camera: samples.empty((b, f, *size, 3)) for camera in cameras},
        "image_mask": {camera: np.zeros((b, f), bool) for camera in cameras},
    }
    found = []
    for number, rows, place in samples.groups:
        index = samples.indexes[number]
        if is_random:
            key = hash_numbers(
                samples.seed, _OFFSETS, number, place.first_step + place.step
            )
            places = np.broadcast_to(np.arange(f), (len(rows), f))
            offset = np.sort(1 + permute(places, samples.chunk - 1, key[:, None]))
        else:
            offset = np.broadcast_to(fixed, (len(rows), f))
        ahead = place.step[:, None] + offset * samples.skips[number]
        real = ahead < place.length[:, None]
        label["offset"][rows], label["mask"][rows] = offset, real
        row, column = np.nonzero(real)
        step = place.first_step[row] + ahead[row, column]
        slot = rows[row] * f + column
        for camera in cameras:
            images = label["image"][camera].reshape(-1, *size, 3)
            exists, some = find_frames(index, "image", camera, step, slot, images)
            label["image_mask"][camera].reshape(-1)[slot] = exists
            found += some
    for image in label["image"].values():
        image[~label["mask"]] = 0
    return label, found


def goal_image(
    samples: Samples, *, cameras: Sequence[str]
) -> tuple[dict, list[Frames]]:
    """Images of a later step as the goal, each later step as likely, see `draw_goal`.

    Returns:
        `offset` int32 [b 1], steps from now to the goal, 0 at the last step of an
        episode; `image`, camera to uint8 [b 1 h w 3], and `image_mask`, camera to bool
        [b 1], False where the goal has no image. Black where masked.
    """
    _check_cameras("goal_image", cameras, samples)
    b, size = samples.size, samples.image_size
    label = {
        "offset": np.zeros((b, 1), np.int32),
        "image": {camera: samples.empty((b, 1, *size, 3)) for camera in cameras},
        "image_mask": {camera: np.zeros((b, 1), bool) for camera in cameras},
    }
    found = []
    for number, rows, place in samples.groups:
        step = place.first_step + place.step
        chance = hash_numbers(samples.seed, _GOALS, number, step)
        offset = draw_goal(place.step, place.length, chance)
        label["offset"][rows, 0] = -(-offset // samples.skips[number])
        for camera in cameras:
            exists, some = find_frames(
                samples.indexes[number],
                "image",
                camera,
                step + offset,
                rows,
                label["image"][camera][:, 0],
            )
            label["image_mask"][camera][rows, 0] = exists
            found += some
    return label, found


def draw_goal(step: np.ndarray, length: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Steps from each step to its goal: hindsight relabelling, uniform over the future.

    Args:
        step: int [b], within the episode.
        length: int [b], of the episode.
        chance: uint64 [b], random bits.

    Returns:
        int64 [b] in 1 .. length - 1 - step, and 0 at the last step, which has no
        future but itself.
    """
    remaining = (length - 1 - step).astype(np.int64)
    draw = chance % np.maximum(remaining, 1).astype(np.uint64)
    return np.where(remaining > 0, 1 + draw.astype(np.int64), 0)


LABELS: dict[str, Callable] = {
    "future_frames": future_frames,
    "goal_image": goal_image,
    "gripper_event": gripper_event,
    "objects": objects,
    "pose": pose,
}


def build_labels(
    configs: Sequence[Mapping[str, Any]], indexes: Sequence[Any], chunk: int
) -> dict[str, Label]:
    """Builds the labels that `data.labels` of a config names.

    Raises:
        ValueError: an unknown or repeated name, a missing, unknown or impossible field.
    """
    labels: dict[str, Label] = {}
    nothing = Samples(indexes, (), 0, chunk, (1, 1), 0, np.zeros, ())
    for config in configs:
        fields = dict(config)
        name = fields.pop("name", None)
        if name not in LABELS:
            raise ValueError(f"Unknown label {name!r}; {did_you_mean(name, LABELS)}")
        if name in labels:
            raise ValueError(f"Label {name!r} stands in data.labels twice.")
        parameters = dict(inspect.signature(LABELS[name]).parameters)
        del parameters["samples"]
        required = [k for k, p in parameters.items() if p.default is p.empty]
        check_keys(fields, parameters, f"label {name!r}", required=required)
        labels[name] = functools.partial(LABELS[name], **fields)
        labels[name](nothing)  # refuses impossible values now, not at the first batch
    return labels


def steps_to_event(gripper: np.ndarray) -> np.ndarray:
    """Steps from every step of an episode to its next gripper event, -1 for none.

    An event is the first step of a command, open or closed, that differs from the one
    before and is held for at least three frames; shorter flickers are passed over.

    Args:
        gripper: [T], 1 = open, 0 = closed. In the middle, where some simulators say
            "no effort", it counts as open.

    Returns:
        int32 [T], 0 at an event.
    """
    is_open = gripper >= 0.5
    start = np.flatnonzero(np.diff(is_open, prepend=~is_open[:1]))  # of every run
    length = np.diff(start, append=len(gripper))
    start = start[(length >= _HOLD) | (start == 0)]
    event = start[1:][np.diff(is_open[start])]
    step = np.arange(len(gripper))
    following = np.searchsorted(event, step)  # the first event at or after the step
    steps = np.append(event, 0)[following] - step
    return np.where(following < len(event), steps, -1).astype(np.int32)


def _check_cameras(label: str, cameras: Sequence[str], samples: Samples):
    known = sorted({camera for index in samples.indexes for camera in index.cameras})
    unknown = [camera for camera in cameras if camera not in known]
    if unknown or not cameras or isinstance(cameras, str):
        raise ValueError(
            f"Label {label!r} has the cameras {cameras!r}; give a tuple of some of "
            f"{known}."
        )


def _check_offsets(label: str, offsets: Sequence[int], *, least: int) -> np.ndarray:
    whole = not isinstance(offsets, str) and all(isinstance(o, int) for o in offsets)
    if not whole or not offsets or min(offsets) < least:
        raise ValueError(
            f"Label {label!r} has the offsets {offsets!r}; give a tuple of whole "
            f"numbers of at least {least}."
        )
    return np.array(offsets, np.int64)


def _count_random(offsets: str, chunk: int) -> int:
    kind, _, count = offsets.partition(":")
    if kind != "random" or not count.isdigit() or not 0 < int(count) < chunk:
        raise ValueError(
            f"Label 'future_frames' has the offsets {offsets!r}; give a tuple of whole "
            f"numbers, or 'random:<count>' with a count of 1 to {chunk - 1}, which is "
            "data.chunk - 1."
        )
    return int(count)
