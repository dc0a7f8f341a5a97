"""What only a raw episode tells: flags, clock, repeated steps, pictures that freeze."""

import dataclasses
import itertools

import numpy as np

from vla_jax.data.checks.finding import Sample
from vla_jax.data.rlds import RawEpisode, RLDSFolder, episode_from_record
from vla_jax.data.standardize import standardize_episode

_CLOCKS = ("time", "timestamp", "timestamp_ns", "timestamps")
_MOVED = 1e-3  # of the standard deviation: a state that changes more has moved


@dataclasses.dataclass(frozen=True)
class Recording:
    """What was seen in one raw episode.

    Attributes:
        number, num_steps: of the episode.
        inner, ends, early: whether `is_first` or `is_last` is set within the episode;
            is not set at its ends; `is_terminal` is set before the last step.
        has_flags: whether there is any of them.
        repeated: steps that are the step before once more, images included.
        moved: steps in which the robot has moved.
        frozen: camera to those of them with the image of the step before.
        interval: median time between steps in units of the clock, NaN without one.
        pause: the longest time between steps, likewise.
        backwards: whether the clock ever stands still or goes back.
        not_finite: keys of raw numbers that are not finite.
    """

    number: int
    num_steps: int
    inner: bool
    ends: bool
    early: bool
    has_flags: bool
    repeated: int
    moved: int
    frozen: dict[str, int]
    interval: float
    pause: float
    backwards: bool
    not_finite: tuple[str, ...]


def measure_recording(sample: Sample, folder: RLDSFolder, number: int) -> Recording:
    """Reads one episode as it was written, images left encoded."""
    index = sample.index
    place = (int(index.shard[number]), *index.record[number].tolist())
    payload = memoryview(
        index.read_span("record", int(index.first_step[number]), place)
    )
    raw = episode_from_record(payload, folder.features)
    steps = standardize_episode(index.spec, raw).steps
    flags = {
        name: np.asarray(raw.arrays[f"steps/is_{name}"], bool).reshape(-1)
        for name in ("first", "last", "terminal")
        if f"steps/is_{name}" in raw.arrays
    }
    first, last = flags.get("first"), flags.get("last")
    terminal = flags.get("terminal")
    proprio = np.asarray(index.proprio[sample.steps(number)], np.float64)
    action = index.action[sample.steps(number)]
    std = np.maximum(index.statistics["proprio"].std, 1e-9)
    moved = (np.abs(np.diff(proprio, axis=0)) > _MOVED * std).any(1)
    same = {
        camera: _same_as_before(payload, raw.images[key][steps])
        for camera, key in index.spec.cameras.items()
    }
    repeated = ~np.diff(proprio, axis=0).any(1) & ~np.diff(action, axis=0).any(1)
    for images in same.values():
        repeated &= images
    return Recording(
        number=number,
        num_steps=len(steps),
        inner=(first is not None and bool(first[1:].any()))
        or (last is not None and bool(last[:-1].any())),
        ends=(first is not None and not first[0])
        or (last is not None and not last[-1]),
        early=terminal is not None and bool(terminal[:-1].any()),
        has_flags=bool(flags),
        repeated=int(repeated.sum()),
        moved=int(moved.sum()),
        frozen={camera: int((images & moved).sum()) for camera, images in same.items()},
        not_finite=_not_finite(raw),
        **_read_clock(raw, steps),
    )


def _same_as_before(payload: memoryview, spans: np.ndarray) -> np.ndarray:
    """Whether images have the bytes of the one before, bool `[T - 1]`."""
    images = [payload[start : start + size] for start, size in spans.tolist()]
    pairs = itertools.pairwise(images)
    return np.array([len(a) > 0 and a == b for a, b in pairs], bool)


def _read_clock(raw: RawEpisode, steps: np.ndarray) -> dict:
    """`interval`, `pause` and `backwards` of the first feature that is a clock."""
    found = {"interval": np.nan, "pause": np.nan, "backwards": False}
    for key in sorted(raw.arrays):
        if key.rpartition("/")[2] not in _CLOCKS:
            continue
        clock = np.asarray(raw.arrays[key])
        if clock.dtype == object or clock.size != raw.num_steps or len(steps) < 2:
            continue
        if clock.dtype.kind == "u":  # would not go below 0
            clock = clock.astype(np.int64)
        # Integers first: nanoseconds since 1970 are too many for a float64.
        passed = np.diff(clock.reshape(-1)[steps]).astype(np.float64)
        found["interval"] = float(np.median(passed))
        found["pause"] = float(passed.max())
        found["backwards"] = bool((passed <= 0).any())
        break
    return found


def _not_finite(raw: RawEpisode) -> tuple[str, ...]:
    """Keys of numbers and vectors; depth may be NaN where there is none."""
    return tuple(
        key
        for key in sorted(raw.arrays)
        if raw.arrays[key].dtype.kind == "f"
        and raw.arrays[key].ndim <= 2
        and not np.isfinite(raw.arrays[key]).all()
    )
