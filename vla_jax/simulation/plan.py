"""Bookkeeping of a collection: which attempts of a task must still be made."""

from pathlib import Path

import numpy as np


class TaskPlan:
    """Which attempts of one task have been made, and which must still be made.

    Staged files are named `<attempt>.<steps>.success` and `<attempt>.<steps>.failed`.
    """

    def __init__(self, folder: Path, episodes: int):
        """Reads what an earlier run has staged in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.episodes = episodes
        self._done: dict[int, tuple[int, bool]] = {}
        self._playing: set[int] = set()
        for path in folder.iterdir():
            if path.suffix == ".partial":
                path.unlink()
                continue
            number, num_steps, kind = path.name.split(".")
            self._done[int(number)] = (int(num_steps), kind == "success")

    @property
    def kept(self) -> list[int]:
        """The first successful attempts so far, in order of their numbers."""
        wins = sorted(number for number, (_, success) in self._done.items() if success)
        return wins[: self.episodes]

    @property
    def finished(self) -> bool:
        """Whether the kept attempts are final: enough, and none before them is open."""
        kept = self.kept
        return len(kept) == self.episodes and all(
            n in self._done for n in range(kept[-1])
        )

    def next_attempt(self) -> int | None:
        """Number of an attempt that is worth playing now; None if there is none.

        Raises:
            ValueError: the expert fails so often that collecting is hopeless.
        """
        kept = self.kept
        number = 0
        while number in self._done or number in self._playing:
            number += 1
        if len(kept) == self.episodes:
            needed = number < kept[-1]
        else:
            needed = len(kept) + len(self._playing) < self.episodes
        if not needed:
            return None
        if number >= 20 + 10 * self.episodes:
            raise ValueError(
                f"The expert of task '{self._folder.name}' succeeded in only "
                f"{len(kept)} of {number} attempts; lower --action_noise, raise "
                "--horizon or leave the task out."
            )
        self._playing.add(number)
        return number

    def finish(self, number: int, num_steps: int, success: bool) -> None:
        """Notes the outcome of an attempt that `next_attempt` gave out."""
        self._playing.remove(number)
        self._done[number] = (num_steps, success)

    def path(self, number: int) -> Path:
        """The staged episode of a successful attempt."""
        return self._folder / f"{number:06d}.{self._done[number][0]}.success"

    def report(self) -> dict:
        """Counts over the attempts up to the last one that is kept."""
        kept = self.kept
        return {
            "kept": len(kept),
            "attempts": kept[-1] + 1,
            "mean_steps": float(np.mean([self._done[n][0] for n in kept])),
        }
