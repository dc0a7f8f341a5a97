"""Damaged records in a stream, treated as an index treats them.

TensorFlow ends a file at its first damaged record and does not say where that is. From
there on the file is walked as for an index: the same records are left out, the same
error names the shard, the byte and the reason.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from vla_jax.data.shard import open_view
from vla_jax.data.tfrecord import FOOTER, HEADER, CorruptRecord, iterate_records

# A record as it came: byte at which it starts, payload, and its fields where they were
# parsed by somebody else.
Record = tuple[int | None, memoryview, Any]
OnCorrupt = Callable[[CorruptRecord], None]


def sound_records(
    records: Iterator[tuple[memoryview, Any]],
    path: str,
    failures: type[Exception],
    on_corrupt: OnCorrupt | None,
) -> Iterator[Record | CorruptRecord]:
    """The records of a shard; a `CorruptRecord` in place of each that is damaged.

    Args:
        records: payloads and fields, as a reader gives them until it fails.
        path: of the shard.
        failures: what the reader raises. What it cannot read although it is sound, our
            own walk reads.
        on_corrupt: None raises the error instead of going on.

    Raises:
        CorruptRecord: when `on_corrupt` is None.
    """
    count, offset = 0, 0
    with contextlib.suppress(failures):
        for payload, example in records:
            start = offset if example is None else None
            offset += HEADER + len(payload) + FOOTER
            count += 1
            yield start, payload, example
        return
    found: list[CorruptRecord] = []
    report = None if on_corrupt is None else found.append
    walk = iterate_records(open_view(path), path, report)
    for number, (start, payload) in enumerate(walk):
        yield from found
        found.clear()
        if number >= count:
            yield start - HEADER, memoryview(payload), None
    yield from found


def find_record(path: str, position: int) -> int:
    """The byte at which record `position` of a shard starts; the first one is 1."""
    walk = iterate_records(open_view(path), path)
    return next(itertools.islice(walk, position - 1, None))[0] - HEADER


class Reporter:
    """Prints about each damaged record, once however often it is met."""

    def __init__(self):
        self._met: set[tuple[str, int]] = set()

    @property
    def count(self) -> int:
        return len(self._met)

    def __call__(self, error: CorruptRecord) -> None:
        place = error.shard, error.offset
        if place not in self._met:
            self._met.add(place)
            print(f"Left out: {error.shard} at byte {error.offset}: {error.reason}.")
