import msgpack
import numpy as np
import pytest

from vla_jax.client.wire import MAX_PARTS, pack, unpack


def test_arrays_scalars_and_nested_maps_come_back():
    message = {
        "image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        "empty": np.zeros((0, 3)),
        "flag": np.bool_(True),
        "half": np.float16(1.5),
        "nested": {"list": [1, 2.5, "text", None, True]},
    }
    found = unpack(pack(message))
    np.testing.assert_array_equal(found["image"], message["image"])
    assert found["empty"].shape == (0, 3)
    assert found["flag"] and found["half"] == np.float16(1.5)
    assert found["nested"] == message["nested"]
    assert not found["image"].flags.writeable


def test_the_bytes_are_those_of_openpi():
    array = np.array([[1, 2]], np.int16)
    expected = msgpack.packb(
        {
            "a": {
                b"__ndarray__": True,
                b"data": b"\x01\x00\x02\x00",
                b"dtype": "<i2",
                b"shape": (1, 2),
            },
            "b": {b"__npgeneric__": True, b"data": 2.5, b"dtype": "<f4"},
        }
    )
    assert pack({"a": array, "b": np.float32(2.5)}) == expected


def test_big_endian_arrays_travel_little_endian():
    array = np.array([1, 2], ">i4")
    np.testing.assert_array_equal(unpack(pack({"a": array}))["a"], [1, 2])


@pytest.mark.parametrize(
    "value",
    [np.array([None]), np.zeros(2, complex), np.array(["x"]), object(), {1}, 2**70],
)
def test_what_is_no_number_or_text_cannot_be_sent(value):
    with pytest.raises(ValueError, match="cannot be sent"):
        pack({"a": value})


def test_a_short_message_cannot_fill_the_memory():
    # A megabyte of empty maps would be a gigabyte of dicts.
    lists = b"\xdc\x04\x00" + (b"\xdc\x04\x00" + b"\x80" * 1024) * 1024
    with pytest.raises(ValueError, match=f"more than {MAX_PARTS} maps and lists"):
        unpack(lists)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"dtype": "|O"}, r"type '\|O'; expected one of"),
        ({b"dtype": b"<M8[ns]"}, "type '<M8"),
        ({b"shape": [2]}, r"\(2,\) and type float32 takes 8 bytes, but 4 came"),
        ({b"shape": [2**40, 2**40]}, "but 4 came"),
        ({b"shape": [-1]}, "no size"),
        ({b"shape": None}, "no list of at most 6 sizes"),
        ({b"data": "1234"}, "data is a str, expected bytes"),
    ],
)
def test_an_array_that_lies_is_refused(changes, message):
    array = {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [1]}
    assert unpack(msgpack.packb(array)).shape == (1,)
    with pytest.raises(ValueError, match=message):
        unpack(msgpack.packb({**array, **changes}))


def test_deep_nesting_is_refused():
    with pytest.raises(ValueError, match="deeper than 8 levels"):
        unpack(b"\x91" * 20 + b"\xc0")
    with pytest.raises(ValueError, match="no msgpack within limits"):
        unpack(b"\x91" * 100_000 + b"\xc0")
