"""Weight files of other projects as NumPy arrays: safetensors, and PyTorch's `.pth`.

Neither package is needed. A `.pth` file is a pickle, which may run any code when it is
opened; this reader builds nothing but tensors and plain dicts and refuses the rest.
"""

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of files before PyTorch 1.6


def read_tensors(path: str | Path, entry: str = "") -> dict[str, np.ndarray]:
    """Reads every tensor of a weight file.

    Args:
        path: a `.safetensors` file, or what `torch.save` wrote of a state dict.
        entry: the key below which the state dict lies, such as "state_dict" or
            "model"; empty where the file is the state dict itself.

    Returns:
        Name to array.

    Raises:
        ValueError: a file of neither kind, a damaged one, or one that holds anything
            but tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no weight file {path}.")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return _tensors_of(path, read_pickle(path), entry)


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a safetensors file: a JSON header, then the raw arrays.

    Raises:
        ValueError: a damaged header, an unknown type, or data that is cut short.
    """
    data = np.memmap(path, np.uint8, mode="r") if Path(path).stat().st_size else b""
    try:
        (size,) = struct.unpack("<Q", bytes(data[:8]))
        header = json.loads(bytes(data[8 : 8 + size]))
        if not isinstance(header, dict):
            raise ValueError("its header is no table")
    except (struct.error, ValueError) as error:
        raise ValueError(f"{path} is no safetensors file: {error}.") from error
    tensors = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        if about["dtype"] not in _SAFETENSORS:
            raise ValueError(
                f"Tensor {name!r} of {path} is {about['dtype']}; known are "
                f"{sorted(_SAFETENSORS)}."
            )
        dtype = np.dtype(_SAFETENSORS[about["dtype"]])
        start, stop = (8 + size + offset for offset in about["data_offsets"])
        raw = np.array(data[start:stop])
        if raw.size != int(np.prod(about["shape"], dtype=np.int64)) * dtype.itemsize:
            raise ValueError(
                f"{path} is damaged: tensor {name!r} has {raw.size} bytes, which "
                f"{about['dtype']} {about['shape']} does not fit."
            )
        tensors[name] = raw.view(dtype).reshape(about["shape"])
    return tensors


def read_pickle(path: str | Path) -> Any:
    """Reads what `torch.save` wrote: dicts, lists, numbers and tensors, nothing else.

    Raises:
        ValueError: no such file, or one that asks for any other class or function.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _read_legacy(path)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    except (
        *(KeyError, IndexError, TypeError, AttributeError),
        *(EOFError, struct.error, zipfile.BadZipFile),
    ) as error:
        raise ValueError(f"{path} is a damaged PyTorch file: {error!r}.") from error


def _read_zip(path: str | Path) -> Any:
    """PyTorch from 1.6 on: a zip archive with one pickle and one file per storage."""
    with zipfile.ZipFile(path) as archive:
        places = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(places) != 1:
            raise pickle.UnpicklingError("it is a zip archive without one data.pkl")
        folder = places[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")
        storages: dict[str, np.ndarray] = {}

        def load(kind: Any, key: str, size: int) -> np.ndarray:
            if key not in storages:
                storages[key] = np.frombuffer(
                    archive.read(f"{folder}data/{key}"), _storage(kind), size
                )
            return storages[key]

        return _Unpickler(io.BytesIO(archive.read(places[0])), load).load()


def _read_legacy(path: str | Path) -> Any:
    """PyTorch before 1.6: five pickles in a row, then the storages."""

    def refuse(kind, key, size):
        raise pickle.UnpicklingError("a tensor stands in the header")

    sizes: dict[str, tuple[Any, int]] = {}

    def note(kind: Any, key: str, size: int) -> "_Later":
        sizes[key] = (kind, size)
        return _Later(key, np.dtype(_storage(kind)))

    with open(path, "rb") as file:
        if file.read(1) != b"\x80":
            raise pickle.UnpicklingError(
                "it is neither a zip archive nor a pickle of PyTorch"
            )
        file.seek(0)
        if _Unpickler(file, refuse).load() != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("it is a pickle, but none of PyTorch")
        for _ in range(2):  # version of the protocol, and facts about the machine
            _Unpickler(file, refuse).load()
        content = _Unpickler(file, note).load()
        storages = {}
        for key in _Unpickler(file, refuse).load():
            (size,) = struct.unpack("<q", file.read(8))
            dtype = np.dtype(_storage(sizes[key][0]))
            storages[key] = np.frombuffer(file.read(size * dtype.itemsize), dtype, size)
    return _fill(content, storages)


class _Later:
    """A tensor of the old format, whose numbers come after the pickle."""

    def __init__(self, key: str, dtype: np.dtype):
        self.key, self.dtype, self.view = key, dtype, None


def _fill(content: Any, storages: dict[str, np.ndarray]) -> Any:
    if isinstance(content, _Later):
        return _strided(storages[content.key], *content.view)
    if isinstance(content, dict):
        return {key: _fill(value, storages) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_fill(value, storages) for value in content)
    return content


class _Unpickler(pickle.Unpickler):
    """Knows the few names that a state dict needs and no other."""

    def __init__(self, file: io.BufferedIOBase, load: Callable):
        super().__init__(file, encoding="utf-8")
        self._load = load

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _STORAGES:
            return _Storage(name)
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}, which is no part of a tensor; save the "
            "model's state_dict() alone"
        )

    def persistent_load(self, pid: tuple) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no storage")
        if len(pid) > 5 and pid[5] is not None:
            raise pickle.UnpicklingError("it shares parts of storages")
        _, kind, key, _, size = pid[:5]
        return self._load(kind, key, size)


class _Storage(str):
    """The name of a type of numbers; calling it, as a pickle could, makes nothing."""

    __slots__ = ()


def _storage(kind: Any) -> Any:
    if not isinstance(kind, _Storage):
        raise pickle.UnpicklingError(f"{kind!r} is no type of numbers")
    return _STORAGES[kind]


def _rebuild_tensor(
    storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None
):
    del requires_grad, hooks, metadata
    if isinstance(storage, _Later):
        tensor = _Later(storage.key, storage.dtype)
        tensor.view = (offset, size, stride)
        return tensor
    return _strided(storage, offset, size, stride)


def _rebuild_parameter(data, requires_grad, hooks):
    del requires_grad, hooks
    return data


def _strided(storage: np.ndarray, offset: int, size, stride) -> np.ndarray:
    """A copy of the tensor that lies in `storage`; checked, since a file says where."""
    if len(size) != len(stride) or min((offset, *size, *stride), default=0) < 0:
        raise pickle.UnpicklingError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.size:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    if 0 in size:
        return np.zeros(size, storage.dtype)
    steps = tuple(s * storage.itemsize for s in stride)
    view = np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), steps)
    return view.copy()


def _tensors_of(path: Path, content: Any, entry: str) -> dict[str, np.ndarray]:
    if entry:
        if not isinstance(content, dict) or entry not in content:
            keys = sorted(map(str, content)) if isinstance(content, dict) else []
            raise ValueError(f"{path} has no entry {entry!r}; it has {keys[:20]}.")
        content = content[entry]
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a {type(content).__name__}; expected a dict of tensors."
        )
    for name, value in content.items():
        if not isinstance(value, np.ndarray) or not isinstance(name, str):
            nested = [str(k) for k, v in content.items() if isinstance(v, dict)]
            hint = f" Name one of the entries {nested}." if nested else ""
            raise ValueError(
                f"{name!r} of {path} is a {type(value).__name__} and no tensor.{hint}"
            )
    return dict(content)
