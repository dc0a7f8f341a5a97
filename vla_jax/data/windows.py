"""Which steps of an episode a sample shows and predicts, at the rate of the policy.

A data set recorded faster than the policy acts is skipped through: of every `skip`
frames one is seen, and `skip` actions become one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

_SLACK = 0.25  # how far a rate may be off the target, as a share of it


def window_and_chunk(step, length, *, window: int, chunk: int, skip: int = 1):
    """Gives each sampled step its past frames and its future actions.

    Args:
      step: int [b], a step of its episode.
      length: int [b], the number of steps of that episode.
      window: number of past and present frames the policy sees.
      chunk: number of actions it predicts.
      skip: recorded steps per step of the policy.

    Returns:
      indices into the episode and what is real: `past [b window]`, oldest first,
      clamped at the first frame with `frame_mask` False before it; `future
      [b chunk * skip]`, which `merge_actions` makes a chunk of, clamped at the last
      action with `action_mask` False after it. In the order `past, frame_mask, future,
      action_mask`.
    """
    past = step[:, None] + skip * np.arange(1 - window, 1)
    future = step[:, None] + np.arange(chunk * skip)
    last = length[:, None] - 1
    first = step[:, None] % skip  # the oldest frame that is a whole number of steps ago
    return np.maximum(past, first), past >= 0, np.minimum(future, last), future <= last


def merge_actions(
    action: np.ndarray, real: np.ndarray, relative: np.ndarray, skip: int
) -> tuple[np.ndarray, np.ndarray]:
    """Makes one action of every `skip` recorded ones.

    Relative dimensions add up; of absolute ones and the gripper the last counts, where
    the robot is to be in the end.

    Args:
      action: [b, c * skip, a]; relative dimensions are zero past the end of an episode.
      real: bool [b, c * skip], False past the end.
      relative: bool [a].
      skip: recorded steps per action.

    Returns:
      `action [b c a]`, and bool [b c], False where all of it lies past the end.
    """
    if skip == 1:
        return action, real
    b, steps, a = action.shape
    groups = action.reshape(b, steps // skip, skip, a)
    merged = np.where(relative, groups.sum(axis=2), groups[:, :, -1])
    return merged, real.reshape(b, steps // skip, skip)[:, :, 0]


def choose_skip(dataset: Mapping[str, Any], control_hz: float, place: str) -> int:
    """Recorded steps per step of the policy: `frame_skip`, or to match `target_hz`.

    Args:
      dataset: an entry of `data.datasets`.
      control_hz: steps per second of the data set.
      place: what messages call the entry.

    Raises:
      ValueError: both are given, or no whole number of steps comes near the target.
    """
    if "frame_skip" in dataset and "target_hz" in dataset:
        raise ValueError(
            f"{place} has both frame_skip and target_hz; give one of them."
        )
    if "target_hz" not in dataset:
        skip = dataset.get("frame_skip", 1)
        if not isinstance(skip, int) or skip < 1:
            raise ValueError(
                f"{place}.frame_skip is {skip!r}; expected a whole number from 1 on."
            )
        return skip
    target = dataset["target_hz"]
    if not target > 0:
        raise ValueError(f"{place}.target_hz is {target}; expected more than 0.")
    skip = max(round(control_hz / target), 1)
    if not rates_match(control_hz / skip, target):
        raise ValueError(
            f"{place} was recorded at {control_hz:g} Hz. Taking every {skip}. frame "
            f"makes {control_hz / skip:g} Hz of it, too far from target_hz={target:g}."
        )
    return skip


def rates_match(control_hz: float, target: float) -> bool:
    """Whether a rate is so near its target that one may stand for the other."""
    return abs(control_hz - target) <= _SLACK * target
