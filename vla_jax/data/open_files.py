"""Shards that are open: few enough for the process, however many data sets there are.

A mixture draws from thousands of shards, and a process may often have no more than 1024
files open. So all indexes of a process share one list of open files, and the file that
was used longest ago gives way.
"""

import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

_MOST = 1024
_SPARE = 2  # of the files that a process may open, one in so many is for shards


class LocalFile:
    """A file read at any offset by any thread; closed when nobody uses it any more."""

    def __init__(self, path: str):
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def __del__(self):
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class OpenFiles:
    """The files used last, at most `limit`; usable from any thread."""

    def __init__(self, limit: int):
        self.limit = limit
        self._files: OrderedDict[tuple[int, int], Any] = OrderedDict()
        # Reentrant: what is collected while a thread is in here may call `forget`.
        self._lock = threading.RLock()

    def get(self, owner: int, number: int, opener: Callable[[int], Any]) -> Any:
        """File `number` of an owner, from `opener(number)` unless it is open."""
        key = owner, number
        with self._lock:
            file = self._files.get(key)
            if file is not None:
                self._files.move_to_end(key)
                return file
        file = opener(number)
        with self._lock:
            self._files[key] = file
            while len(self._files) > self.limit:
                self._files.popitem(last=False)  # closes when its last reader is done
        return file

    def forget(self, owner: int) -> None:
        """Closes the files of an owner."""
        with self._lock:
            for key in list(self._files):
                if key[0] == owner:
                    self._files.pop(key, None)


def limit() -> int:
    """Shards that one process keeps open: half of the files that it may have open."""
    try:
        import resource
    except ImportError:  # not on this system
        return _MOST // _SPARE
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(soft // _SPARE, _MOST)


OPEN_FILES = OpenFiles(limit())
OWNERS = itertools.count()  # numbers that no two indexes of a process share
