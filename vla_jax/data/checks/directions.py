"""Checks whether actions agree with the motion that follows them.

Late actions, wrong signs, swapped axes, unequal units, and absolute goals that are
declared relative (or the other way round) all show in how actions and states correlate.
"""

from collections.abc import Iterator

import numpy as np

from vla_jax.data.checks.finding import Finding
from vla_jax.data.checks.motion import LAGS, Motion

_AGREE = 0.3  # correlations below this say nothing
_CLEAR = 0.6  # and above this, slopes mean something


def check_motion(motion: Motion | None) -> Iterator[Finding]:
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
    wrong = list(_check_directions(motion))
    if "relative" not in motion.kinds:
        yield from wrong or [_check_goals(motion)]
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
        yield _no_agreement(motion, motion.agreement)
    else:
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
        elif kind == "absolute" and change > max(0.8, abs(level) + 0.3):
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
        return _no_agreement(motion, level)
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
        table = motion.change if kind == "relative" else motion.level
        straight = float(table[d, d])
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
        other = int(np.argmax(np.abs(table[d, :axes])))
        across = float(table[d, other])
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
    relative = [d for d, kind in enumerate(motion.kinds) if kind == "relative"]
    slope = np.diag(motion.slope)[relative]
    clear = np.abs(np.diag(motion.change)[relative]) > _CLEAR
    if motion.source == "pose" and clear.all() and slope.max() > 5 * slope.min():
        low, high = (relative[int(f(slope))] for f in (np.argmin, np.argmax))
        return Finding(
            "warning",
            "actions and motion",
            f"One unit of action dimension {high} moves the end effector by "
            f"{slope.max():.3g} m, one of dimension {low} by {slope.min():.3g} m.",
            "Give all axes in the same unit, unless the controller scales them.",
        )
    delay = LAGS[motion.lag]
    after = "at once" if delay <= 0 else f"after {delay} more step{'s'[: delay - 1]}"
    along = f" along the axes of the {motion.frame}" if motion.frame else ""
    unit = " m" if motion.source == "pose" else ""
    slopes = ", ".join(f"{value:.3g}" for value in slope[:7])
    return Finding(
        "ok",
        "actions and motion",
        f"The {motion.source} follows the actions{along} {after} (correlation "
        f"{motion.agreement:.2f}); one unit moves it by {slopes}{unit}.",
    )


def _no_agreement(motion: Motion, correlation: float) -> Finding:
    if motion.source == "pose":
        return Finding(
            "warning",
            "actions and motion",
            "Actions and the motion of the end effector do not go together "
            f"(correlation {correlation:.2f}).",
            "Check that actions and poses are of the same arm, step and frame.",
        )
    return Finding(
        "skipped",
        "actions and motion",
        "No proprio column follows the action dimension with the same number "
        f"(correlation {correlation:.2f}), so they cannot be compared.",
        "Return `pose` from the standardize function to check signs and frames.",
    )


def _state(motion: Motion, d: int) -> str:
    if motion.source == "pose":
        return f"the end effector's {'xyz'[d]}"
    return f"proprio column {d}"
