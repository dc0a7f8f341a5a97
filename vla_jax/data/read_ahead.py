"""A remote file from front to back in bounded memory: for what reads it only once.

An index walks every record of a shard in order. Reading the whole file first would cost
as much memory as the largest shard (hundreds of megabytes) in every worker; here a few
parts are on their way while the one before them is looked at, and what lies behind the
reader is let go. Nothing of it goes through the cache on disk.
"""

from concurrent.futures import Future
from typing import Protocol

PART = 4 * 2**20  # bytes of one request
AHEAD = 3  # parts requested beyond those that are needed


class _Ranges(Protocol):
    """What is read: see `vla_jax.data.remote.RemoteFile`."""

    size: int

    def request(self, start: int, stop: int) -> Future: ...


class ReadAhead:
    """The bytes of a remote file: has a length, and slices with rising starts.

    At most the parts that a slice touches, `ahead` more and the slice itself are in
    memory: for a record of n bytes `2 * n + (ahead + 2) * part`.

    Args:
        file: what to read.
        part: bytes of one request.
        ahead: parts requested beyond those that are needed; 0 for a reader that jumps.
    """

    def __init__(self, file: _Ranges, *, part: int | None = None, ahead: int = AHEAD):
        self._file, self._part, self._ahead = file, part or PART, ahead
        self._parts: dict[int, Future] = {}

    def __len__(self) -> int:
        return self._file.size

    def __getitem__(self, place: slice) -> memoryview:
        """Bytes of the file; fewer at its end.

        Raises:
            ConnectionError: some bytes could not be had, naming them.
        """
        start, stop, _ = place.indices(len(self))
        if stop <= start:
            return memoryview(b"")
        size = self._part
        first, last = start // size, (stop - 1) // size
        for part in [part for part in self._parts if part < first]:
            self._parts.pop(part).cancel()
        end = -(-len(self) // size)
        for part in range(first, min(last + 1 + self._ahead, end)):
            if part not in self._parts:
                begin = part * size
                self._parts[part] = self._file.request(
                    begin, min(begin + size, len(self))
                )
        out = bytearray(stop - start)
        for part in range(first, last + 1):
            begin = part * size
            low, high = max(start, begin), min(stop, begin + size)
            data = memoryview(self._parts[part].result())
            out[low - start : high - start] = data[low - begin : high - begin]
        return memoryview(out)
