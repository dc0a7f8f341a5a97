"""Framing, checksums and the walk over tf.train.Example."""

import io
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.data.tfrecord import (
    CorruptRecord,
    count_records,
    encode_example,
    iterate_records,
    parse_example,
    write_record,
)


def _shard(*payloads: bytes) -> bytearray:
    file = io.BytesIO()
    for payload in payloads:
        write_record(file, payload)
    return bytearray(file.getvalue())


def _payloads(view, **options) -> list[bytes]:
    return [bytes(payload) for _, payload in iterate_records(view, "s", **options)]


def test_tensorflow_reads_our_records_and_we_read_its(tmp_path):
    import tensorflow as tf

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(_shard(b"one", b"", b"three" * 100))
    assert [r.numpy() for r in tf.data.TFRecordDataset(str(ours))] == [
        b"one",
        b"",
        b"three" * 100,
    ]
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        writer.write(b"a")
        writer.write(b"bc")
    assert _payloads(theirs.read_bytes()) == [b"a", b"bc"]


def test_offsets_point_at_the_payloads():
    view = _shard(b"one", b"three")
    assert [offset for offset, _ in iterate_records(view, "s")] == [12, 12 + 3 + 4 + 12]
    assert count_records(view, "s") == 2


def test_payloads_are_views_of_the_file():
    view = _shard(b"one")
    ((_, payload),) = iterate_records(view, "s")
    assert payload.obj is view


@pytest.mark.parametrize("position", [0, 9, 12, 14, 15])
def test_a_flipped_byte_names_shard_and_offset(position):
    view = _shard(b"one", b"two", b"three")
    second = 12 + 3 + 4
    view[second + position] ^= 1
    with pytest.raises(
        CorruptRecord, match=rf"in s at byte {second}: .*--skip_corrupt"
    ):
        _payloads(view)


def test_a_broken_payload_is_skipped_and_a_broken_length_ends_the_walk():
    for position, expected in ((13, [b"one", b"three"]), (2, [b"one"])):
        view = _shard(b"one", b"two", b"three")
        view[19 + position] ^= 1
        errors = []
        assert _payloads(view, on_corrupt=errors.append) == expected
        assert [error.offset for error in errors] == [19]


@pytest.mark.parametrize("length", [20, 30, 33, 35])
def test_a_truncated_shard_is_corrupt(length):
    view = _shard(b"one", b"two")[:length]
    with pytest.raises(CorruptRecord, match="at byte 19"):
        _payloads(view)
    assert count_records(view, "s") == 1


def test_an_empty_file_has_no_records():
    assert _payloads(b"") == []


def test_a_compressed_file_is_named():
    import gzip
    import zlib

    for data in (gzip.compress(_shard(b"one")), zlib.compress(_shard(b"one"))):
        with pytest.raises(ValueError, match="s is a compressed"):
            _payloads(data)


def test_a_corrupt_record_survives_pickling():
    error = pickle.loads(pickle.dumps(CorruptRecord("shard", 7, "why")))
    assert (error.shard, error.offset, error.reason) == ("shard", 7, "why")
    assert "shard at byte 7: why" in str(error)


def test_parse_gives_spans_and_numbers():
    payload = encode_example(
        {
            "image": [b"abc", b"", b"defg"],
            "action": np.array([[1.5, -2.0]], np.float32),
            "count": np.array([0, 1, 127, 128, 300, -1, 2**62, -(2**63)], np.int64),
            "flag": np.array([True, False]),
            "none": [],
        }
    )
    fields = parse_example(payload)
    spans = fields["image"].value
    assert [payload[o : o + n] for o, n in spans] == [b"abc", b"", b"defg"]
    np.testing.assert_array_equal(fields["action"].value, [1.5, -2.0])
    assert fields["count"].value.tolist() == [0, 1, 127, 128, 300, -1, 2**62, -(2**63)]
    assert fields["flag"].value.tolist() == [1, 0]
    assert fields["none"].value.shape == (0, 2)
    assert [fields[k].kind for k in ("image", "action", "flag")] == [
        "bytes",
        "float",
        "int64",
    ]


@settings(deadline=None, max_examples=50)
@given(
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1)),
    floats=st.lists(st.floats(width=32, allow_nan=False)),
    strings=st.lists(st.binary(max_size=300)),
)
def test_tensorflow_agrees_on_any_example(numbers, floats, strings):
    from tensorflow_datasets.proto import tf_example_pb2

    ours = encode_example(
        {
            "i": np.array(numbers, np.int64),
            "f": np.array(floats, np.float32),
            "b": strings,
        }
    )
    example = tf_example_pb2.Example.FromString(ours)
    feature = example.features.feature
    assert list(feature["i"].int64_list.value) == numbers
    assert list(feature["f"].float_list.value) == floats
    assert list(feature["b"].bytes_list.value) == strings
    theirs = example.SerializeToString()
    fields = parse_example(theirs)
    assert fields["i"].value.tolist() == numbers
    assert fields["f"].value.tolist() == floats
    assert [theirs[o : o + n] for o, n in fields["b"].value] == strings


def test_unpacked_numbers_are_read():
    # Feature { float_list { value: 1.0 value: 2.0 } } with one field per number.
    floats = b"\x0d" + struct.pack("<f", 1) + b"\x0d" + struct.pack("<f", 2)
    entry = b"\x0a\x01x\x12" + bytes([len(floats) + 2]) + b"\x12" + bytes([len(floats)])
    entry += floats
    features = b"\x0a" + bytes([len(entry)]) + entry
    fields = parse_example(b"\x0a" + bytes([len(features)]) + features)
    np.testing.assert_array_equal(fields["x"].value, [1.0, 2.0])


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\x0b\x00", b"\x0a\x05ab", b"hello"])
def test_other_bytes_are_no_example(data):
    with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
        parse_example(data)


def test_complex_numbers_cannot_be_encoded():
    with pytest.raises(ValueError, match="'x' has dtype complex128"):
        encode_example({"x": np.zeros(1, complex)})
