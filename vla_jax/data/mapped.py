"""Arrays that stay on disk and take no open file.

`numpy.load(mmap_mode="r")` keeps the file of every array open for as long as the array
lives. An index has a dozen arrays, so a mixture of sixty data sets would come near the
1024 files that a process may often have open. A mapping itself needs no open file.
"""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


def map_array(path: Path) -> np.ndarray:
    """The array of a `.npy` file, read-only; its pages are read when they are used.

    Raises:
        OSError: there is no such file, or it cannot be mapped.
        ValueError: it is no `.npy` file.
    """
    with path.open("rb") as file:
        np.lib.format.read_magic(file)  # numpy.save writes version 1.0 of plain arrays
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        start, size = file.tell(), os.fstat(file.fileno()).st_size
        if fortran or start + np.prod(shape, dtype=np.int64) * dtype.itemsize > size:
            raise ValueError(f"{path} is cut short or not in C order.")
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.asarray(_Mapping(file.fileno(), size, start, shape, dtype))


class _Mapping:
    """Owner of mapped memory, which goes when the last array in it has gone."""

    def __init__(self, descriptor: int, size: int, start: int, shape, dtype: np.dtype):
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self._unmap, self._address, self._size = _libc.munmap, address, size
        self.__array_interface__ = {
            "data": (address + start, True),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }

    def __del__(self):
        if hasattr(self, "_address"):
            self._unmap(self._address, self._size)
