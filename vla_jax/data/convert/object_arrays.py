"""NumPy files with Python objects in them, read without running what they contain.

`np.save` writes an array of objects as a pickle, which may run any code when it is
opened. This reader knows arrays, numbers, strings and plain containers, takes each
array from its bytes, and refuses the rest.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

_TYPES = re.compile(r"([biufc][0-9]+|\?|[SU][0-9]+|O8?)")
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_objects(path: str | Path) -> Any:
    """What `np.load(path, allow_pickle=True)` gives for data that holds no code.

    Returns:
        The array; of an array without axes, what is in it, such as a dict.

    Raises:
        ValueError: no such file, a damaged one, or one that asks for any class or
            function that data do not need.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"its format {version} is unknown")
            _, _, dtype = _HEADERS[version](file)
            if not dtype.hasobject:
                return np.load(path, allow_pickle=False)
            found = _plain(_Unpickler(file).load())
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: {error}.") from error
    except (*(ValueError, TypeError, KeyError, IndexError), EOFError) as error:
        raise ValueError(f"{path} is no array that can be read: {error}.") from error
    except AttributeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    is_single = isinstance(found, np.ndarray) and found.shape == ()
    return found.item() if is_single else found


class _Unpickler(pickle.Unpickler):
    """Knows the few names of NumPy's arrays and no other."""

    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy.core.multiarray", "scalar"): _scalar,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _Type,
            ("_codecs", "encode"): _encode,
            ("__builtin__", "bytes"): _no_bytes,
        }
        # NumPy 2 moved these.
        key = (module.replace("numpy._core", "numpy.core"), name)
        if key not in known:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is no part of plain data"
            )
        return known[key]


class _Type:
    """A data type by its name and byte order."""

    def __init__(self, name: Any, align: Any = False, copy: Any = False):
        del align, copy
        if not isinstance(name, str) or not _TYPES.fullmatch(name):
            raise pickle.UnpicklingError(f"it has the data type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array whose bytes, or list of objects, come with its state."""

    array: np.ndarray | None = None
    objects: list | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        self.shape, self.order = shape, "F" if is_fortran else "C"
        if kind.dtype.hasobject:
            if not isinstance(data, list):
                raise pickle.UnpicklingError("it has objects without a list of them")
            self.objects = data
        else:
            self.array = _from_bytes(data, kind.dtype).reshape(shape, order=self.order)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    del shape, code
    if kind is not _Array:
        raise pickle.UnpicklingError(f"it makes a {kind!r} instead of an array")
    return _Array()


def _scalar(kind: _Type, data: Any) -> Any:
    (value,) = _from_bytes(data, kind.dtype)
    return value


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it has bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""  # how protocol 2 writes it


def _from_bytes(data: Any, dtype: np.dtype) -> np.ndarray:
    # Protocol 2 writes bytes as text.
    data = data.encode("latin1") if isinstance(data, str) else data
    if dtype.hasobject or not isinstance(data, bytes):
        raise pickle.UnpicklingError("it has numbers without their bytes")
    return np.frombuffer(data, dtype)


def _plain(value: Any) -> Any:
    """The same with arrays in the place of what was read of them."""
    if isinstance(value, _Array):
        if value.objects is None:
            return value.array
        array = np.empty(len(value.objects), object)
        for index, item in enumerate(value.objects):
            array[index] = _plain(item)
        return array.reshape(value.shape, order=value.order)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(_plain(item) for item in value)
    return value
