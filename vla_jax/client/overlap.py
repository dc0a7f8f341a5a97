"""Joining chunks that overlap in time: the next one comes while this one is played."""

from collections.abc import Sequence

import numpy as np


class OverlapPlan:
    """The actions planned for the steps of an episode.

    A chunk was computed from what was seen at one step and arrives some steps later.
    Its first actions are then in the past and are dropped; over the next `blend` steps
    the plan passes from the old actions to the new ones, the new one's weight after
    `k` steps being `(k + 1) / (blend + 1)`. A gripper switches halfway, since half open
    is no mean of open and closed.
    """

    def __init__(self, *, blend: int, kinds: Sequence[str] = ()):
        """Starts empty.

        Args:
            blend: steps over which two chunks are mixed; 0 switches at once.
            kinds: kind of every action dimension; "gripper" switches, others are mixed.

        Raises:
            ValueError: a negative `blend`.
        """
        if blend < 0:
            raise ValueError(f"blend is {blend}; expected 0 or more steps.")
        self._blend = blend
        self._switch = np.array([kind == "gripper" for kind in kinds], bool)
        self._first = 0  # the step of the first action in the plan
        self._actions: np.ndarray | None = None

    def __contains__(self, step: int) -> bool:
        """Whether there is an action for `step`."""
        count = 0 if self._actions is None else len(self._actions)
        return self._first <= step < self._first + count

    def __getitem__(self, step: int) -> np.ndarray:
        """The action f32 [a] of `step`, which must be in the plan."""
        assert step in self, step
        return self._actions[step - self._first]

    def add(self, chunk: np.ndarray, *, seen: int, now: int) -> bool:
        """Takes a chunk `[c a]` computed from the observation of step `seen`.

        Args:
            chunk: its first action belongs to step `seen`.
            seen: step of the observation.
            now: the step that is to be played next.

        Returns:
            False when the whole chunk lies in the past and was dropped.
        """
        new = np.asarray(chunk, np.float32)[now - seen :]
        if not len(new):
            return False
        old = self._actions[now - self._first :] if now in self else new[:0]
        overlap = min(self._blend, len(old), len(new))
        if overlap:
            weight = (np.arange(overlap, dtype=np.float32) + 1) / (self._blend + 1)
            weight = np.repeat(weight[:, None], new.shape[1], axis=1)
            if len(self._switch):
                weight[:, self._switch] = weight[:, self._switch] >= 0.5
            mixed = (1 - weight) * old[:overlap] + weight * new[:overlap]
            new = np.concatenate([mixed, new[overlap:]])
        self._first, self._actions = now, new
        return True
