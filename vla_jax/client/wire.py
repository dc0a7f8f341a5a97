"""Messages of openpi's websocket protocol: msgpack with NumPy arrays, never a pickle.

An array is a map with byte-string keys: `__ndarray__`, `data`, `dtype` and `shape`; a
NumPy scalar has `__npgeneric__` instead. What comes from outside is read with limits on
size, depth, number and type of everything, because anybody may have sent it.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

MAX_BYTES = 32 * 2**20  # of a message, where nobody says otherwise
MAX_NESTING = 8  # maps in maps
MAX_ENTRIES = 1024  # of one map or list
MAX_PARTS = 4096  # maps and lists of one message
MAX_TEXT = 64 * 1024  # characters of a text or key
MAX_RANK = 6  # axes of an array

# Numbers only. Python objects, records, dates and texts stay out.
_CODES = (
    "?",
    "u1",
    "<u2",
    "<u4",
    "<u8",
    "i1",
    "<i2",
    "<i4",
    "<i8",
    "<f2",
    "<f4",
    "<f8",
)
_TYPES = {np.dtype(code).str: np.dtype(code) for code in _CODES}


def pack(message: Any) -> bytes:
    """A message as bytes.

    Raises:
        ValueError: something in it is neither a number, text, list, map nor array of
            numbers.
    """
    try:
        return msgpack.packb(message, default=_pack_array)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"This cannot be sent: {error}.") from error


def unpack(data: bytes) -> Any:
    """The message in bytes; its arrays share them and cannot be written to.

    Raises:
        ValueError: the bytes are no message, or one beyond the limits of this module.
    """
    count = itertools.count(1)

    def limited(part):
        # A byte makes an empty map, so a short message could fill the memory.
        if next(count) > MAX_PARTS:
            raise _Refused(f"The message has more than {MAX_PARTS} maps and lists.")
        return _unpack_map(part) if isinstance(part, dict) else part

    try:
        message = msgpack.unpackb(
            data,
            object_hook=limited,
            list_hook=limited,
            raw=False,
            strict_map_key=True,
            max_str_len=MAX_TEXT,
            max_array_len=MAX_ENTRIES,
            max_map_len=MAX_ENTRIES,
            max_bin_len=len(data),
            max_ext_len=0,
        )
    except _Refused as error:
        raise ValueError(str(error)) from None
    except (msgpack.UnpackException, ValueError, RecursionError) as error:
        words = str(error) or type(error).__name__
        raise ValueError(f"The message is no msgpack within limits: {words}.") from None
    _limit_nesting(message, MAX_NESTING)
    return message


class _Refused(Exception):
    """An array that is not taken; no ValueError, which msgpack raises as well."""


def _pack_array(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "?buif":
            raise ValueError(
                f"Arrays of type {value.dtype} cannot be sent, only of numbers."
            )
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        if isinstance(value, np.generic):
            return {
                b"__npgeneric__": True,
                b"data": value.item(),
                b"dtype": little.dtype.str,
            }
        return {
            b"__ndarray__": True,
            b"data": little.tobytes(),
            b"dtype": little.dtype.str,
            b"shape": value.shape,
        }
    raise TypeError(f"a {type(value).__name__} is neither number, text, list nor map")


def _unpack_map(content: dict) -> Any:
    if b"__ndarray__" in content:
        return _unpack_array(content)
    if b"__npgeneric__" in content:
        dtype, value = _dtype(content), content.get(b"data")
        if not isinstance(value, bool | int | float):
            raise _Refused(f"A scalar's data is a {type(value).__name__}.")
        try:
            return dtype.type(value)
        except (OverflowError, ValueError) as error:
            raise _Refused(f"A scalar does not fit {dtype}: {error}.") from None
    return content


def _unpack_array(content: Mapping) -> np.ndarray:
    dtype, data, shape = (
        _dtype(content),
        content.get(b"data"),
        content.get(b"shape"),
    )
    if not isinstance(data, bytes):
        raise _Refused(f"An array's data is a {type(data).__name__}, expected bytes.")
    if not isinstance(shape, list | tuple) or len(shape) > MAX_RANK:
        raise _Refused(f"An array's shape is no list of at most {MAX_RANK} sizes.")
    # bool is an int to Python, and an int of msgpack has at most 64 bits.
    if any(type(size) is not int or size < 0 for size in shape):
        raise _Refused("An array's shape holds something that is no size.")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(data):
        raise _Refused(
            f"An array of shape {tuple(shape)} and type {dtype} takes {expected} "
            f"bytes, but {len(data)} came."
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _dtype(content: Mapping) -> np.dtype:
    """The type that an array names; looked up, never parsed."""
    name = content.get(b"dtype")
    if isinstance(name, bytes):
        name = name.decode("ascii", "replace")
    if not isinstance(name, str) or name not in _TYPES:
        raise _Refused(
            f"An array has the type {str(name)[:40]!r}; expected one of "
            f"{sorted(_TYPES)}."
        )
    return _TYPES[name]


def _limit_nesting(message: Any, depth: int) -> None:
    if not isinstance(message, dict | list):
        return
    if depth == 0:
        raise ValueError(f"The message nests deeper than {MAX_NESTING} levels.")
    for value in message.values() if isinstance(message, dict) else message:
        _limit_nesting(value, depth - 1)
