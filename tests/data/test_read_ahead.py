"""A remote shard is walked in bounded memory, whatever its size."""

import io
import tracemalloc
from concurrent.futures import Future

import numpy as np
import pytest

from vla_jax.data.read_ahead import ReadAhead
from vla_jax.data.tfrecord import count_records, iterate_records, write_record


class Counted:
    """A remote file that knows how many of its bytes are out."""

    def __init__(self, data: bytes):
        self.data, self.size, self.requests = data, len(data), []

    def request(self, start, stop):
        self.requests.append((start, stop))
        future = Future()
        future.set_result(self.data[start:stop])
        return future


def shard(num_records: int, size: int) -> tuple[bytes, list[bytes]]:
    rng, file = np.random.default_rng(0), io.BytesIO()
    payloads = [rng.bytes(size + i) for i in range(num_records)]
    for payload in payloads:
        write_record(file, payload)
    return file.getvalue(), payloads


@pytest.mark.parametrize("part", [7, 64, 1000])
@pytest.mark.parametrize("ahead", [0, 2])
def test_every_slice_is_exact(part, ahead):
    data = bytes(range(256))
    view = ReadAhead(Counted(data), part=part, ahead=ahead)
    assert len(view) == 256
    for start, stop in [(0, 12), (5, 5), (3, 200), (199, 256), (250, 900)]:
        assert bytes(view[start:stop]) == data[start:stop]


def test_every_part_is_requested_once_and_before_it_is_needed():
    file = Counted(bytes(100))
    view = ReadAhead(file, part=10, ahead=3)
    _ = view[0:1]
    assert file.requests == [(0, 10), (10, 20), (20, 30), (30, 40)]
    for start in range(1, 100, 4):
        _ = view[start : start + 4]
    assert file.requests == [(start, start + 10) for start in range(0, 100, 10)]


def test_records_are_those_of_the_whole_file():
    data, payloads = shard(9, 1000)
    records = iterate_records(ReadAhead(Counted(data), part=512), "shard")
    whole = iterate_records(data, "shard")
    for record, expected, payload in zip(records, whole, payloads, strict=True):
        assert record[0] == expected[0]
        assert bytes(record[1]) == bytes(expected[1]) == payload


def test_counting_records_reads_little_of_the_file():
    data, _ = shard(6, 100_000)
    file = Counted(data)
    assert count_records(ReadAhead(file, part=1000, ahead=0), "shard") == 6
    assert sum(stop - start for start, stop in file.requests) < 20_000


def test_a_shard_that_is_cut_off_is_named_as_when_it_is_local():
    data, _ = shard(3, 1000)
    view = ReadAhead(Counted(data[:-300]), part=256)
    with pytest.raises(ValueError, match=r"1002 bytes end beyond the file \(27"):
        list(iterate_records(view, "shard"))


def test_memory_is_that_of_one_record_not_of_the_file():
    record, part = 300_000, 100_000
    data, _ = shard(60, record)  # 18 MB
    view = ReadAhead(Counted(data), part=part, ahead=3)
    tracemalloc.start()
    for _, payload in iterate_records(view, "shard"):
        assert len(payload) >= record
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One record in use, the next, its parts and three ahead.
    assert peak < 4 * record + 5 * part < len(data) / 10


def test_a_failed_request_is_the_readers_error():
    class Broken(Counted):
        def request(self, start, stop):
            future = Future()
            future.set_exception(ConnectionError(f"bytes {start} to {stop}"))
            return future

    with pytest.raises(ConnectionError, match="bytes 0 to 10"):
        _ = ReadAhead(Broken(bytes(100)), part=10)[0:4]


def test_parts_that_are_not_needed_yet_are_not_waited_for():
    file = Counted(bytes(100))
    view = ReadAhead(file, part=10, ahead=1)

    def request(start, stop):
        future = Future()
        if start == 0:
            future.set_result(file.data[start:stop])
        return future  # the others never come

    file.request = request
    assert bytes(view[0:5]) == bytes(5)
