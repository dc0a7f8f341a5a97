"""The episodes of one split of a data set, and where its samples lie."""

import dataclasses
import typing

import numpy as np

from vla_jax.data.index import Index


class Place(typing.NamedTuple):
    """Where samples lie; all arrays are [b]."""

    episode: np.ndarray  # number within the data set
    step: np.ndarray  # within the episode
    length: np.ndarray  # of the episode, in steps
    first_step: np.ndarray  # of the episode, within the data set


@dataclasses.dataclass(frozen=True)
class Episodes:
    """The episodes of one split, end to end: every step of them is one sample.

    Attributes:
        number: int32 [e], numbers within the data set.
        length: int64 [e], in steps.
        first_step: int64 [e], within the data set.
        first_sample: int64 [e], within the split.
    """

    number: np.ndarray
    length: np.ndarray
    first_step: np.ndarray
    first_sample: np.ndarray

    @property
    def num_samples(self) -> int:
        return int(self.length.sum())

    def locate(self, sample: np.ndarray) -> Place:
        """Finds the steps that samples [b] start at, by bisection."""
        row = np.searchsorted(self.first_sample, sample, side="right") - 1
        return Place(
            self.number[row],
            sample - self.first_sample[row],
            self.length[row],
            self.first_step[row],
        )


def split_episodes(index: Index, split: str | None) -> Episodes:
    """The episodes of a split; none without one."""
    number = index.split_episodes(split) if split else np.zeros(0, np.int32)
    length = index.num_episode_steps[number].astype(np.int64)
    return Episodes(
        number=number,
        length=length,
        first_step=np.asarray(index.first_step[number], np.int64),
        first_sample=np.cumsum(length) - length,
    )
