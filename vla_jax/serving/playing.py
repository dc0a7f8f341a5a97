"""Playing chunks: how overlapping predictions become one action per step."""

from collections import deque

import numpy as np


class ChunkPlayer:
    """Turns the chunks predicted in one episode into actions.

    Two ways: play `execute` actions of a chunk and then ask for the next; or ask at
    every step and average all predictions for it (temporal ensembling).
    """

    def __init__(
        self, chunk: int, *, execute: int | None = None, ensemble: float | None = None
    ):
        """Starts without a plan.

        Args:
            chunk: actions in every chunk.
            execute: actions played before the next prediction is due; `chunk` if None.
            ensemble: the rate m of the weights `exp(-m * i)`, where i counts from the
                oldest prediction; at every step a prediction is due.

        Raises:
            ValueError: `execute` outside 1..chunk, or both ways at once.
        """
        if execute is not None and ensemble is not None:
            raise ValueError(
                f"execute={execute} and ensemble={ensemble} exclude each other: "
                "ensembling predicts at every step."
            )
        if execute is not None and not 1 <= execute <= chunk:
            raise ValueError(
                f"execute={execute} must lie between 1 and the chunk of {chunk}."
            )
        self._chunk, self._ensemble = chunk, ensemble
        self._execute = chunk if execute is None else execute
        self._plans: deque[np.ndarray] = deque()  # what is left of each, oldest first

    @property
    def is_due(self) -> bool:
        """Whether `add` must come before the next `next`."""
        if not self._plans:
            return True
        if self._ensemble is None:
            return len(self._plans[0]) <= self._chunk - self._execute
        return len(self._plans[-1]) < self._chunk

    def add(self, chunk: np.ndarray) -> None:
        """Takes the chunk `[c, a]` predicted for this step and the following ones."""
        assert len(chunk) == self._chunk, (len(chunk), self._chunk)
        if self._ensemble is None:
            self._plans.clear()
        self._plans.append(chunk)

    def next(self) -> np.ndarray:
        """The action `[a]` of this step; moves on to the next."""
        assert not self.is_due
        rate = self._ensemble or 0.0
        weights = np.exp(-rate * np.arange(len(self._plans)))
        first = np.stack([plan[0] for plan in self._plans])
        action = np.einsum("i,ia->a", weights / weights.sum(), first)
        self._plans = deque(plan[1:] for plan in self._plans if len(plan) > 1)
        return action.astype(np.float32)
