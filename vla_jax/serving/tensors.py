"""Safetensors files with NumPy alone: named arrays that no program hides in.

The format is eight bytes of header length, a JSON header of names with types, shapes
and places, and the bytes of the arrays. Files of the `safetensors` package are read,
and it reads these.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

_TYPES = {
    "BOOL": np.dtype(bool),
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U64": np.dtype("<u8"),
    "I8": np.dtype("<i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors package


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays, sorted by name; the file appears as a whole.

    Raises:
        ValueError: an array of a type that the format lacks.
    """
    names = {dtype: name for name, dtype in _TYPES.items()}
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    arrays, offset = [], 0
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        dtype = array.dtype
        if dtype not in names:
            raise ValueError(
                f"Array {name!r} has type {array.dtype}; safetensors files hold "
                f"{sorted(str(known) for known in names)}."
            )
        arrays.append(array)
        header[name] = {
            "dtype": names[dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            file.write(array.tobytes())
    os.replace(temporary, path)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a file; they share its bytes and cannot be written to.

    Raises:
        ValueError: the file is missing, cut short, or no safetensors file.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MAX_HEADER, len(data) - 8):
        raise ValueError(
            f"{path} is cut short or no safetensors file: it has {len(data)} bytes, "
            f"and its header would take {length}."
        )
    try:
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        body = memoryview(data)[8 + length :]
        return {name: _array(body, name, entry) for name, entry in header.items()}
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} has a damaged header: {error}.") from error
    except ValueError as error:  # bad JSON among them
        raise ValueError(f"{path} is damaged: {error}") from error


def _array(data: memoryview, name: str, entry: Mapping) -> np.ndarray:
    dtype, shape = _TYPES[entry["dtype"]], tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    if any(not isinstance(size, int) or size < 0 for size in shape):
        raise ValueError(f"array {name!r} has the shape {shape}.")
    size = math.prod(shape) * dtype.itemsize
    if not 0 <= start <= stop <= len(data) or stop - start != size:
        raise ValueError(
            f"array {name!r} of shape {shape} takes {size} bytes, but lies at {start} "
            f"to {stop} of {len(data)}."
        )
    return np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
