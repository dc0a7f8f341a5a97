"""TFRecord framing and the wire format of `tf.train.Example`, without TensorFlow.

A TFRecord file is a sequence of `length (u64) | crc(length) | payload | crc(payload)`,
little endian, with masked CRC-32C checksums. The payload of an RLDS data set is one
episode as a `tf.train.Example`. The walk below visits every field of it but copies no
payload: byte strings (encoded images above all) are reported by offset and length.
"""

import dataclasses
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

import google_crc32c
import numpy as np

HEADER = 12  # bytes of the length and its checksum, before every payload
FOOTER = 4  # checksum of the payload, after it
_KINDS = {1: "bytes", 2: "float", 3: "int64"}  # fields of tf.train.Feature
_COMPRESSED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x9c", b"\x78\xda")  # GZIP, ZLIB
_BYTES_TAG = 1 << 3 | 2  # field 1, length-delimited
_FIELDS = {kind: number for number, kind in _KINDS.items()}


class CorruptRecord(ValueError):
    """A record that cannot be read: truncated, altered or not an episode.

    Attributes:
        shard: path of the file.
        offset: byte at which the record starts.
        reason: what is wrong with it.
    """

    def __init__(self, shard: str, offset: int, reason: str):
        super().__init__(shard, offset, reason)  # keeps the error picklable
        self.shard, self.offset, self.reason = shard, offset, reason

    def __str__(self) -> str:
        return (
            f"Corrupt record in {self.shard} at byte {self.offset}: {self.reason}. "
            "Download or write the shard again, or leave out and count what cannot be "
            "read: --skip_corrupt of launch/index.py, or data.stream.skip_corrupt."
        )


@dataclasses.dataclass(frozen=True)
class Feature:
    """One field of a `tf.train.Example`.

    Attributes:
        kind: "bytes", "float" or "int64"; "" for a field without values.
        value: `[n, 2]` int64 offsets and lengths relative to the payload for bytes;
            `[n]` float32 or int64 for numbers.
        packed: of numbers that lie in one piece, as every current writer stores them,
            its offset and length in the payload; None otherwise.
    """

    kind: str
    value: np.ndarray
    packed: tuple[int, int] | None = None


def iterate_records(
    view,
    shard: str,
    on_corrupt: Callable[[CorruptRecord], None] | None = None,
) -> Iterator[tuple[int, memoryview]]:
    """Walks the records of a shard and verifies both checksums of each.

    Args:
        view: the bytes of the file: a buffer such as a read-only `mmap`, or something
            that has a length and slices, such as `vla_jax.data.read_ahead.ReadAhead`.
        shard: its name in error messages.
        on_corrupt: told about every corrupt record instead of raising. After a broken
            payload the walk continues at the next record; after a broken length there
            is no way to find the next one and the walk ends.

    Yields:
        Offset of the payload within the file, and the payload itself (of a buffer, not
        a copy).

    Raises:
        CorruptRecord: when `on_corrupt` is None.
        ValueError: for a compressed file.
    """

    def report(offset: int, reason: str) -> None:
        error = CorruptRecord(shard, offset, reason)
        if on_corrupt is None:
            raise error
        on_corrupt(error)

    view = _sliceable(view)
    size, offset = len(view), 0
    while offset < size:
        length, reason = _read_header(view, offset, shard)
        if reason:
            return report(offset, reason)
        start, end = offset + HEADER, offset + HEADER + length
        if end + FOOTER > size:
            return report(
                offset, f"its {length} bytes end beyond the file ({size} bytes)"
            )
        payload = view[start:end]
        if _masked_crc(payload) != struct.unpack("<I", view[end : end + FOOTER])[0]:
            report(offset, "the checksum of its payload does not match")
        else:
            yield start, payload
        offset = end + FOOTER


def count_records(view, shard: str) -> int:
    """Counts records by their lengths alone; stops at the first that is broken."""
    view = _sliceable(view)
    count, offset = 0, 0
    while offset < len(view):
        length, reason = _read_header(view, offset, shard)
        if reason:
            break
        offset += HEADER + length + FOOTER
        count += offset <= len(view)
    return count


def parse_example(payload) -> dict[str, Feature]:
    """Walks a serialized `tf.train.Example` without copying byte strings.

    Raises:
        ValueError: when the bytes are not a `tf.train.Example`.
    """
    payload = memoryview(payload)
    fields = {}
    try:
        for features in _submessages(payload, 0, len(payload), number=1):
            for entry in _submessages(payload, *features, number=1):
                key, feature = _parse_entry(payload, *entry)
                fields[key] = feature
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not a tf.train.Example ({error})") from error
    return fields


def decode_varints(data: np.ndarray) -> np.ndarray:
    """Base-128 numbers `[bytes]` uint8 to values `[n]` int64.

    Raises:
        IndexError: the bytes are no such numbers.
    """
    ends = np.flatnonzero(data < 0x80)
    if len(ends) == len(data):  # flags and small integers
        return data.astype(np.int64)
    if data[-1] >= 0x80:
        raise IndexError("a number that does not end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise IndexError("a number of more than ten bytes")
    values = np.zeros(len(ends), np.uint64)
    for k in range(lengths.max()):
        has = lengths > k
        part = (data[starts[has] + k] & 0x7F).astype(np.uint64)
        values[has] |= part << np.uint64(7 * k)
    return values.view(np.int64)


def write_record(file: BinaryIO, payload: bytes) -> int:
    """Appends one record to an open TFRecord file; returns the bytes written."""
    length = struct.pack("<Q", len(payload))
    file.write(length)
    file.write(struct.pack("<I", _masked_crc(length)))
    file.write(payload)
    file.write(struct.pack("<I", _masked_crc(payload)))
    return HEADER + len(payload) + FOOTER


def encode_example(features: dict[str, list[bytes] | np.ndarray]) -> bytes:
    """Serializes a `tf.train.Example`.

    Lists of bytes become bytes lists, float arrays float lists (float32: the format
    has no other), integer and bool arrays int64 lists. Arrays are flattened. Keys are
    written in sorted order, so equal features give equal bytes.

    Raises:
        ValueError: for an array of another type.
    """
    entries = []
    for key in sorted(features):
        kind, values = _encode_values(key, features[key])
        feature = _tagged(_FIELDS[kind], values)
        entries.append(_tagged(1, _tagged(1, key.encode()) + _tagged(2, feature)))
    return _tagged(1, b"".join(entries))


def _sliceable(view):
    """Slices of a buffer are not to be copies; others have slices of their own."""
    try:
        return memoryview(view)
    except TypeError:
        return view


def _read_header(view, offset: int, shard: str) -> tuple[int, str]:
    """Length of the record at `offset`, and what is wrong with its header."""
    header = bytes(view[offset : offset + HEADER])
    if len(header) < HEADER:
        return 0, f"the file ends within its header, after {len(header)} bytes"
    length, crc = struct.unpack("<QI", header)
    if _masked_crc(header[:8]) == crc:
        return length, ""
    if offset == 0 and header[:2] in _COMPRESSED:
        raise ValueError(
            f"{shard} is a compressed (GZIP or ZLIB) TFRecord file. Frames are read "
            "by their byte offset, which compression takes away: unpack it first, "
            "for example with `gzip -d`."
        )
    return 0, "the checksum of its length does not match"


def _masked_crc(data) -> int:
    # google_crc32c takes bytes and arrays, but no memoryview; the array is no copy.
    crc = google_crc32c.value(np.frombuffer(data, np.uint8)) if len(data) else 0
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """The base-128 number at `position`, and the position after it."""
    byte = buffer[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while True:
        position += 1
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than ten bytes")


def _fields(buffer: memoryview, position: int, end: int):
    """Yields `(number, wire type, start, end)` of the fields of one message."""
    while position < end:
        tag, position = _varint(buffer, position)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            length, position = _varint(buffer, position)
        elif wire == 0:
            length = _varint(buffer, position)[1] - position
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise IndexError(f"wire type {wire}")
        if position + length > end:
            raise IndexError("a field ends beyond its message")
        yield number, wire, position, position + length
        position += length


def _submessages(buffer: memoryview, position: int, end: int, number: int):
    for found, wire, start, stop in _fields(buffer, position, end):
        if found == number and wire == 2:
            yield start, stop


def _parse_entry(payload: memoryview, position: int, end: int) -> tuple[str, Feature]:
    """Reads one `map<string, Feature>` entry."""
    key, feature = "", Feature("", np.zeros(0, np.int64))
    for number, _, start, stop in _fields(payload, position, end):
        if number == 1:
            key = str(payload[start:stop], "utf-8")
        elif number == 2:
            for kind, _, first, last in _fields(payload, start, stop):
                if kind in _KINDS:
                    feature = _parse_values(payload, _KINDS[kind], first, last)
    return key, feature


def _parse_values(payload: memoryview, kind: str, position: int, end: int) -> Feature:
    if kind == "bytes":
        spans = _byte_spans(payload, position, end)
        return Feature(kind, np.array(spans, np.int64).reshape(-1, 2))
    values = list(_fields(payload, position, end))
    # Numbers are packed into one field by every current writer; the format also
    # allows one field per number.
    packed = None
    if len(values) == 1:
        _, _, start, stop = values[0]
        data, packed = payload[start:stop], (start, stop - start)
    else:
        data = b"".join(payload[start:stop] for _, _, start, stop in values)
    if kind == "float":
        if len(data) % 4:
            raise IndexError("a float list that is no multiple of four bytes")
        return Feature(kind, np.frombuffer(data, "<f4"), packed)
    return Feature(kind, decode_varints(np.frombuffer(data, np.uint8)), packed)


def _byte_spans(buffer: memoryview, position: int, end: int) -> list[int]:
    """Offset and length, in turn, of every value of a bytes list.

    As `_fields` for a message of field 1 alone, in one loop: an index spends most of
    its time here.
    """
    spans: list[int] = []
    while position < end:
        if buffer[position] != _BYTES_TAG:
            raise IndexError(f"a bytes list with the tag {buffer[position]}")
        length, position = buffer[position + 1], position + 2
        if length >= 0x80:
            length, position = _varint(buffer, position - 1)
        spans += position, length
        position += length
    if position > end:
        raise IndexError("a field ends beyond its message")
    return spans


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _encode_values(key: str, values) -> tuple[str, bytes]:
    """Kind and serialized list of one feature."""
    if isinstance(values, list):
        return "bytes", b"".join(_tagged(1, value) for value in values)
    values = np.asarray(values).reshape(-1)
    if values.dtype.kind == "f":
        return "float", _tagged(1, values.astype("<f4").tobytes())
    if values.dtype.kind in "biu":
        # Negative numbers are written as their 64-bit two's complement.
        numbers = values.astype(np.int64).view(np.uint64).tolist()
        return "int64", _tagged(1, b"".join(map(_encode_varint, numbers)))
    raise ValueError(
        f"Feature {key!r} has dtype {values.dtype}; a tf.train.Example holds floats, "
        "integers, bools and lists of bytes."
    )


def _tagged(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return _encode_varint(number << 3 | 2) + _encode_varint(len(data)) + data
