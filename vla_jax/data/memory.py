"""Memory for images that is used again, batch after batch.

New memory costs a page fault for every four kilobytes, a noticeable part of the time
that it takes to decode small images into it. Here an array's memory goes back on a
shelf when the last reference to the array is gone, and the next array gets it.
"""

import math
from collections import defaultdict

import numpy as np


class Shelf:
    """Hands out uint8 arrays and takes their memory back; usable from any thread.

    It never holds more memory than was in use at once. An array, its views and whatever
    shares its memory, such as a JAX array on the CPU, keep it out of circulation.
    """

    def __init__(self):
        self._blocks: dict[int, list[np.ndarray]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialized uint8 array of `shape`."""
        size = math.prod(shape)
        blocks = self._blocks[size]
        try:
            block = blocks.pop()
        except IndexError:
            block = np.empty(size, np.uint8)
        return np.asarray(_Loan(block, blocks)).reshape(shape)


class _Loan:
    """Owner of an array's memory while it is in use."""

    def __init__(self, block: np.ndarray, blocks: list[np.ndarray]):
        self.__array_interface__ = block.__array_interface__
        self._block, self._blocks = block, blocks

    def __del__(self):
        self._blocks.append(self._block)
