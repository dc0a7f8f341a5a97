"""Grippers of other conventions to the standard one: 1 is open, 0 is closed.

All functions map `[T]` or `[T, 1]` numbers to float32 `[T, 1]`, the last column of a
standard action.
"""

import numpy as np


def opening(closedness) -> np.ndarray:
    """1 is closed and 0, or anything below it, is open: cut to 0..1 and turned over."""
    return 1 - _clipped(closedness)


def kept(openness) -> np.ndarray:
    """1 is open and 0, or anything below it, is closed: only cut to 0..1."""
    return _clipped(openness)


def opening_from_signed(effort, *, closed: int) -> np.ndarray:
    """Open and closed are -1 and 1, whichever way: `closed` says which is closed."""
    return _clipped((1 - closed * _column(effort)) / 2)


def opening_from_changes(change, threshold: float = 0.1) -> np.ndarray:
    """Commands that only say what changes: positive closes, negative opens, 0 holds.

    Every step takes the last command at or before it. Before the first command the
    gripper is in the state that this command leaves: open if it closes, closed if it
    opens. Without any command the gripper is open throughout.
    """
    change = _column(change)[:, 0]
    commanded = np.abs(change) > threshold
    if not commanded.any():
        return np.ones((len(change), 1), np.float32)
    first = np.argmax(commanded)
    last = np.maximum.accumulate(np.where(commanded, np.arange(len(change)), -1))
    is_open = np.where(last >= 0, change[last] < 0, change[first] > 0)
    return is_open[:, None].astype(np.float32)


def binarized(openness, closed_below: float = 0.05, open_above: float = 0.95):
    """Openness to exactly 0 or 1, by where each transition is going.

    A value between the two limits takes the state that is reached next; where none is
    reached any more, the one that the last value is closer to.
    """
    openness = _column(openness)[:, 0]
    decided = (openness < closed_below) | (openness > open_above)
    decided[-1:] = True
    steps = np.where(decided, np.arange(len(openness)), len(openness))
    reached = np.minimum.accumulate(steps[::-1])[::-1]
    return (openness[reached] > 0.5)[:, None].astype(np.float32)


def constant(num_steps: int, openness: float) -> np.ndarray:
    """A gripper that never moves, or an arm that has none."""
    return np.full((num_steps, 1), openness, np.float32)


def _clipped(values) -> np.ndarray:
    return np.clip(_column(values), 0, 1)


def _column(values) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, 1)
