"""Checks whether actions agree with the motion that follows them.

Correlations of every action dimension with the change of the state that follows (or
comes before) tell late actions, wrong signs, swapped axes and absolute goals that are
declared relative. Positions are those of `pose`; without poses, of the proprio column
with the same number, which may mean something else, so that less is concluded.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from vla_jax.data.checks.covariance import Covariance
from vla_jax.data.checks.finding import Finding, Sample

LAGS = (-1, 0, 1, 2)  # further steps after which the motion is looked at
_BEFORE, _AFTER = 1, 3  # steps of an episode lost to them at either end
_HAND_SIZES = (3, 6)  # dimensions of an action that moves a hand, gripper aside
_AGREE = 0.3  # correlations below this say nothing


@dataclasses.dataclass(frozen=True)
class Motion:
    """How actions and states go together; of `d` actions that have a state.

    Attributes:
        source: "pose", or "proprio".
        is_hand: whether the first three dimensions move a hand along x, y and z.
        kinds: of the actions.
        by_lag: `[lags, d, d]`, correlation with the state's change.
        level: `[d, d]`, correlation with the next state itself.
        slope: `[d, d]`, change of the state per unit of action, at the best lag.
        near: bool `[d]`, whether actions and next states have about the same range.
    """

    source: str
    is_hand: bool
    kinds: tuple[str, ...]
    by_lag: np.ndarray
    level: np.ndarray
    slope: np.ndarray
    near: np.ndarray

    @property
    def lag(self) -> int:
        """Position in `LAGS` of the one that agrees best."""
        return int(np.argmax(self._agreement))

    @property
    def change(self) -> np.ndarray:
        """Correlation with the state's change at the best lag, `[d, d]`."""
        return self.by_lag[self.lag]

    @property
    def agreement(self) -> float:
        """Mean size of the correlation of relative actions at the best lag."""
        return float(self._agreement[self.lag])

    @property
    def before(self) -> float:
        """How far the motion before the action agrees better than that after it."""
        return float(self._agreement[0] - self._agreement[1:].max())

    @property
    def has_height(self) -> bool:
        """Whether the third state is sure to be the height of the hand."""
        straight = np.diag(self.change)[:3]
        return self.source == "pose" or (
            self.is_hand and len(straight) == 3 and bool((straight > 0.5).all())
        )

    @property
    def _agreement(self) -> np.ndarray:
        relative = np.array([kind == "relative" for kind in self.kinds])
        sizes = np.abs(np.diagonal(self.by_lag, axis1=1, axis2=2))
        return sizes[:, relative].mean(1) if relative.any() else np.zeros(len(LAGS))


def measure_motion(sample: Sample) -> Motion | None:
    """Correlates actions with states; None where there is nothing to correlate."""
    index = sample.index
    moving = sum(kind != "gripper" for kind in index.spec.action)
    is_hand = moving in _HAND_SIZES
    use_pose = index.pose is not None and is_hand
    states = index.pose if use_pose else index.proprio
    width = min(moving, 3 if use_pose else states.shape[1])
    changes, level = [Covariance() for _ in LAGS], Covariance()
    for episode in sample.track(sample.episodes.tolist(), "motion"):
        steps = sample.steps(episode)
        action = index.action[steps][_BEFORE:-_AFTER, :width]
        state = np.asarray(states[steps][:, :width], np.float64)
        if not width or not len(action):
            continue
        start = np.arange(_BEFORE, _BEFORE + len(action))
        for lag, change in zip(LAGS, changes, strict=True):
            change.update(action, state[start + lag + 1] - state[start + lag])
        level.update(action, state[start + 1])
    if level.count < 10:
        return None
    by_lag = np.stack([change.correlation() for change in changes])
    mean, std, next_mean, next_std = level.moments()
    motion = Motion(
        source="pose" if use_pose else "proprio",
        is_hand=is_hand,
        kinds=index.spec.action[:width],
        by_lag=by_lag,
        level=level.correlation(),
        slope=np.zeros((width, width)),
        near=(np.abs(mean - next_mean) < next_std)
        & (std < 3 * next_std)
        & (next_std < 3 * std),
    )
    return dataclasses.replace(motion, slope=changes[motion.lag].slope())


def check_motion(sample: Sample, motion: Motion | None) -> Iterator[Finding]:
    """Judges what `measure_motion` has found."""
    if motion is None:
        yield Finding(
            "skipped",
            "actions and motion",
            "There are too few steps, or no states, to compare actions with.",
        )
        return
    wrong_kinds = list(_check_kinds(motion))
    yield from wrong_kinds
    if wrong_kinds:
        return
    if "relative" not in motion.kinds:
        yield _check_goals(motion)
    elif motion.before > 0.1 and motion.agreement > 0.5:
        later = motion.agreement - motion.before
        yield Finding(
            "warning",
            "actions and motion",
            "Actions agree with the motion that came before them (correlation "
            f"{motion.agreement:.2f}), less with the one that follows ({later:.2f}): "
            "they seem to be one step late.",
            "Pair every observation with the action that was taken after it.",
        )
    elif motion.agreement < _AGREE:
        yield _no_agreement(motion)
    else:
        wrong = list(_check_directions(motion))
        yield from wrong or [_agreement(motion)]


def _check_kinds(motion: Motion) -> Iterator[Finding]:
    best = np.abs(np.diagonal(motion.by_lag, axis1=1, axis2=2)).max(0)
    for d, kind in enumerate(motion.kinds):
        level, change = float(motion.level[d, d]), float(best[d])
        if kind == "relative" and level > max(0.95, change + 0.1) and motion.near[d]:
            yield Finding(
                "warning",
                "actions and motion",
                f"Action dimension {d} is declared relative but equals "
                f"{_state(motion, d)} that is reached next (correlation {level:.2f}).",
                "Declare it 'absolute', or subtract the present state in the "
                "standardize function.",
            )
        elif kind == "absolute" and abs(level) < 0.5 and change > 0.8:
            yield Finding(
                "warning",
                "actions and motion",
                f"Action dimension {d} is declared absolute but goes with the change "
                f"of {_state(motion, d)} (correlation {change:.2f}), not with its "
                f"value ({level:.2f}).",
                "Declare it 'relative', or add the present state in the standardize "
                "function.",
            )


def _check_goals(motion: Motion) -> Finding:
    level = float(np.diag(motion.level).mean())
    if level < _AGREE:
        return _no_agreement(motion)
    return Finding(
        "ok",
        "actions and motion",
        f"Absolute actions agree with the {motion.source} reached next (correlation "
        f"{level:.2f}).",
    )


def _check_directions(motion: Motion) -> Iterator[Finding]:
    # A proprio column of another meaning may well correlate somewhat.
    sure = 0.5 if motion.source == "pose" else 0.8
    hint = (
        ""
        if motion.source == "pose"
        else " if both mean the same; return `pose` to make sure"
    )
    for d, kind in enumerate(motion.kinds):
        straight = float(motion.change[d, d])
        if kind != "relative":
            continue
        if straight < -sure:
            yield Finding(
                "warning",
                "actions and motion",
                f"Action dimension {d} moves {_state(motion, d)} the other way "
                f"(correlation {straight:.2f}).",
                f"Turn its sign in the standardize function{hint}.",
            )
            continue
        axes = min(3, len(motion.kinds))
        other = int(np.argmax(np.abs(motion.change[d, :axes])))
        across = float(motion.change[d, other])
        if motion.is_hand and d < 3 and abs(straight) < _AGREE and abs(across) > 0.8:
            yield Finding(
                "warning",
                "actions and motion",
                f"Action dimension {d} moves {_state(motion, other)} (correlation "
                f"{across:.2f}) instead of {_state(motion, d)} ({straight:.2f}).",
                "Actions and states are told in different frames, or columns are "
                f"swapped: bring both into the frame of the robot's base{hint}.",
            )


def _agreement(motion: Motion) -> Finding:
    delay = LAGS[motion.lag]
    after = "at once" if delay <= 0 else f"after {delay} more step{'s'[: delay - 1]}"
    unit = " m" if motion.source == "pose" else ""
    slopes = ", ".join(f"{slope:.3g}" for slope in np.diag(motion.slope)[:7])
    return Finding(
        "ok",
        "actions and motion",
        f"The {motion.source} follows the actions {after} (correlation "
        f"{motion.agreement:.2f}); one unit moves it by {slopes}{unit}.",
    )


def _no_agreement(motion: Motion) -> Finding:
    if motion.source == "pose":
        return Finding(
            "warning",
            "actions and motion",
            "Actions and the motion of the end effector do not go together "
            f"(correlation {motion.agreement:.2f}).",
            "Check that actions and poses are of the same arm, step and frame.",
        )
    return Finding(
        "skipped",
        "actions and motion",
        "No proprio column follows the action dimension with the same number "
        f"(correlation {motion.agreement:.2f}), so they cannot be compared.",
        "Return `pose` from the standardize function to check signs and frames.",
    )


def _state(motion: Motion, d: int) -> str:
    if motion.source == "pose":
        return f"the end effector's {'xyz'[d]}"
    return f"proprio column {d}"
