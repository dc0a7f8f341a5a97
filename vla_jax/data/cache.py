"""Blocks of remote files on the local disk, under a size limit.

The environment chooses the folder and the limit:

    VLA_JAX_CACHE=~/.cache/vla_jax/remote    VLA_JAX_CACHE_GB=20
"""

import contextlib
import functools
import os
import tempfile
import threading
from pathlib import Path

_SPARE = 0.9  # share of the limit that remains after blocks have been deleted


class BlockCache:
    """Blocks of files in a folder of limited size, shared by threads and processes.

    The folder exceeds the limit by what each process adds between two looks at it, a
    tenth of the limit at most.

    Args:
        folder: is made when needed.
        limit: bytes.
    """

    def __init__(self, folder: str | os.PathLike, limit: int):
        self.folder, self.limit = Path(folder).expanduser(), limit
        self._lock = threading.Lock()
        self._added = limit  # so that the first block makes it look at the folder

    def get(self, file: str, block: int, length: int) -> bytes | None:
        """A block of `length` bytes, if it is there whole."""
        path = self.folder / file / str(block)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:  # never was there, or another process has deleted it
            return None
        return data if len(data) == length else None

    def put(self, file: str, block: int, data: bytes) -> None:
        """Keeps a block; appears whole or not at all."""
        folder = self.folder / file
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=folder)
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
        os.replace(temporary, folder / str(block))
        with self._lock:
            self._added += len(data)
            if self._added > self.limit * (1 - _SPARE):
                self._added = 0
                self._shrink()

    def _shrink(self) -> None:
        """Deletes the blocks used longest ago until there is room again."""
        blocks = []
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    status = path.stat()
                    blocks.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in blocks)
        if total <= self.limit:
            return
        for _, size, path in sorted(blocks):
            if total <= self.limit * _SPARE:
                return
            path.unlink(missing_ok=True)
            total -= size


@functools.cache
def default_cache() -> BlockCache:
    """The cache that the environment names.

    Raises:
        ValueError: when the limit is no positive number.
    """
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    folder = os.environ.get("VLA_JAX_CACHE", f"{home}/vla_jax/remote")
    limit = os.environ.get("VLA_JAX_CACHE_GB", "20")
    try:
        size = int(float(limit) * 1e9)
    except ValueError:
        size = 0
    if size <= 0:
        raise ValueError(f"VLA_JAX_CACHE_GB is {limit!r}; give a positive number.")
    return BlockCache(folder, size)
