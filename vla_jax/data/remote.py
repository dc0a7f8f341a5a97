"""Files behind a URL (HTTP, object stores): read by ranges, kept in blocks on disk.

`fsspec` (extra `remote`) speaks to the server. What is read is a whole number of blocks
that are then kept in a folder under a size limit, the least recently used leaving
first; blocks that lie together are fetched in one request. A request that fails, is cut
off or gives too few bytes is tried again with growing pauses, then an error says which
bytes of which file could not be had. `vla_jax.data.cache` says where the folder is.
"""

import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from etils import epath

from vla_jax.data.cache import BlockCache, default_cache
from vla_jax.names import did_you_mean

BLOCK = 256 * 2**10  # bytes of one block

_LARGEST = 32  # blocks in one request
_REQUESTS = 16  # at the same time
_WAIT_AGAIN = (408, 429)  # statuses of a client's mistake that mean: try later

# What fsspec needs for a protocol beyond itself, by the name on the package index.
_PACKAGES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "s3": "s3fs",
    "s3a": "s3fs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "sftp": "paramiko",
}

T = TypeVar("T")


class Patience(NamedTuple):
    """How long to insist.

    Attributes:
        attempts: requests before giving up.
        pause: seconds before the second attempt; doubled every time.
        timeout: seconds without a byte after which an HTTP request has failed.
    """

    attempts: int = 6
    pause: float = 0.5
    timeout: float = 30.0


class RemoteFile:
    """A file behind a URL, read at any offset by any thread.

    Args:
        url: with its protocol.
        cache: where blocks are kept; the default one when None.
        patience: with the server; `Patience()` when None.

    Raises:
        ConnectionError: the server does not answer, or without the size of the file.
        FileNotFoundError: there is no such file.
    """

    def __init__(
        self,
        url: str,
        *,
        cache: BlockCache | None = None,
        patience: Patience = Patience(),
    ):
        self.url = url
        self._patience = patience = patience or Patience()
        self._cache = default_cache() if cache is None else cache
        self._system, self._path = _file_system(url, patience.timeout)
        info = _insist(url, patience, "its size", lambda: self._system.info(self._path))
        if info.get("size") is None:
            raise ConnectionError(f"The server does not tell the size of {url}.")
        self.size = int(info["size"])
        # Another version of the file has other blocks.
        version = [url, self.size, BLOCK]
        version += [str(info.get(key)) for key in ("ETag", "etag", "mtime")]
        self._name = hashlib.sha256(repr(version).encode()).hexdigest()[:32]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset` on; fewer at the end of the file."""
        return self.read_many([(offset, length)])[0]

    def read_many(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of several spans, each an offset and a length, in few requests.

        Raises:
            ConnectionError: some bytes could not be had, naming them.
        """
        wanted = [(start, min(start + n, self.size)) for start, n in spans]
        needed = {
            block
            for start, stop in wanted
            for block in range(start // BLOCK, -(-stop // BLOCK))
        }
        blocks: dict[int, bytes] = {}
        for block in needed:
            data = self._cache.get(self._name, block, self._length(block))
            if data is not None:
                blocks[block] = data
        missing = coalesce(needed - blocks.keys())
        for found in _requests().map(self._fetch_blocks, missing):
            blocks |= found
        return [self._assemble(blocks, start, stop) for start, stop in wanted]

    def read_whole(self) -> bytes:
        """A whole small file, past the cache: what is read once needs no keeping."""
        size = _LARGEST * BLOCK
        starts = range(0, self.size, size)
        parts = [self.request(s, min(s + size, self.size)) for s in starts]
        return b"".join(part.result() for part in parts)

    def request(self, start: int, stop: int) -> Future:
        """Asks for the bytes from `start` to `stop`, past the cache.

        Returns:
            A future of the bytes; a ConnectionError when they could not be had.
        """
        return _requests().submit(self._fetch, start, stop)

    def _length(self, block: int) -> int:
        return min(BLOCK, self.size - block * BLOCK)

    def _assemble(self, blocks: dict[int, bytes], start: int, stop: int) -> bytes:
        parts = []
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            parts.append(blocks[block][max(start - first, 0) : stop - first])
        return b"".join(parts)

    def _fetch_blocks(self, run: range) -> dict[int, bytes]:
        """Neighbouring blocks by one request."""
        first = run.start * BLOCK
        data = self._fetch(first, min(run.stop * BLOCK, self.size))
        blocks = {}
        for block in run:
            start = block * BLOCK - first
            blocks[block] = data[start : start + BLOCK]
            self._cache.put(self._name, block, blocks[block])
        return blocks

    def _fetch(self, start: int, stop: int) -> bytes:
        def attempt() -> bytes:
            data = self._system.cat_file(self._path, start=start, end=stop)
            if len(data) != stop - start:
                raise ConnectionError(
                    f"the server gave {len(data)} bytes instead of {stop - start}"
                )
            return data

        what = f"bytes {start} to {stop}"
        return _insist(self.url, self._patience, what, attempt)


class RemotePath:
    """A URL with as much of the interface of a path as opening a data set takes."""

    def __init__(self, url: str):
        self._url = url.rstrip("/")

    @property
    def name(self) -> str:
        return self._url.rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self._url.rpartition("/")[0])

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self._url}/{name}")

    def __str__(self) -> str:
        return self._url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(self._url)

    def expanduser(self) -> "RemotePath":
        return self

    def exists(self) -> bool:
        """Whether there is such a file or folder, of those that the server lists."""
        patience = Patience()
        system, path = _file_system(self._url, patience.timeout)
        try:
            _insist(self._url, patience, "whether it exists", lambda: system.info(path))
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        system, path = _file_system(self._url, Patience().timeout)
        return system.isdir(path)

    def iterdir(self) -> Iterator["RemotePath"]:
        """What the folder holds; the server has to list it."""
        patience = Patience()
        system, path = _file_system(self._url, patience.timeout)
        for child in _insist(
            self._url, patience, "the list", lambda: system.ls(path, detail=False)
        ):
            yield self / child.rstrip("/").rpartition("/")[2]

    def relative_to(self, other: "RemotePath") -> str:
        return self._url.removeprefix(f"{other}/")

    def read_bytes(self) -> bytes:
        return RemoteFile(self._url).read_whole()

    def read_text(self) -> str:
        return self.read_bytes().decode()


def open_path(path: Any) -> Any:
    """A path on disk, or behind a URL."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else str(path)
    return RemotePath(text) if "://" in text else epath.Path(text).expanduser()


def file_sizes(paths: Sequence[str]) -> list[int]:
    """Bytes of files on disk or behind URLs, which are asked for all at once."""
    if not any("://" in path for path in paths):  # worth no threads
        return [Path(path).stat().st_size for path in paths]
    return list(_requests().map(lambda path: RemoteFile(path).size, paths))


def coalesce(blocks: Iterable[int]) -> list[range]:
    """Runs of blocks for one request each; one block in between is read along."""
    runs: list[range] = []
    for block in sorted(blocks):
        near = runs and block <= runs[-1].stop + 1
        if near and block < runs[-1].start + _LARGEST:
            runs[-1] = range(runs[-1].start, block + 1)
        else:
            runs.append(range(block, block + 1))
    return runs


@functools.cache
def _requests() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_REQUESTS, "remote")


def _file_system(url: str, timeout: float) -> tuple[Any, str]:
    """The file system of a URL and the path in it; fsspec keeps it for the next.

    Raises:
        ImportError: a package that is not installed, with the command to do so.
        ValueError: a protocol that nothing reads.
    """
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        import fsspec
    except ImportError as error:
        raise ImportError(
            f"{url} cannot be read ({error}): install the extra 'remote' (pip install "
            "'vla_jax[remote]'), and for an object store its package, gcsfs for gs:// "
            "or s3fs for s3://."
        ) from error
    known = fsspec.available_protocols()
    if protocol not in known:
        raise ValueError(
            f"{url} cannot be read: nothing reads the protocol {protocol!r}; "
            f"{did_you_mean(protocol, known)}"
        )
    try:
        options = {}
        if url.startswith(("http://", "https://")):
            import aiohttp

            limits = aiohttp.ClientTimeout(sock_connect=timeout, sock_read=timeout)
            options["client_kwargs"] = {"timeout": limits}
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        remedy = f"pip install {package}" if package else "install what it names"
        raise ImportError(
            f"{url} cannot be read without {package or 'another package'} ({error}): "
            f"{remedy}."
        ) from error


def _insist(url: str, patience: Patience, what: str, attempt: Callable[[], T]) -> T:
    """Tries until it works, the mistake is ours, or patience ends."""
    pause = patience.pause
    for number in range(1, patience.attempts + 1):
        try:
            return attempt()
        except Exception as error:  # every file system has errors of its own
            if _is_final(error):
                absent = isinstance(error, FileNotFoundError)
                kind = FileNotFoundError if absent else OSError
                raise kind(f"{url} cannot be read: {error!r}") from error
            if number == patience.attempts:
                raise ConnectionError(
                    f"{what} of {url} could not be read in {number} attempts; the last "
                    f"one failed with {error!r}. Run again when the server can be "
                    "reached: what was read is kept."
                ) from error
        time.sleep(pause)
        pause *= 2
    raise ValueError(f"{patience} allows no attempt.")


def _is_final(error: BaseException) -> bool:
    """Whether trying again is of no use: the file is not there or not for us."""
    cause: BaseException | None = error
    while cause is not None:
        status = getattr(cause, "status", None)
        if isinstance(status, int):
            return 400 <= status < 500 and status not in _WAIT_AGAIN
        cause = cause.__cause__
    final = isinstance(error, FileNotFoundError | PermissionError | ImportError)
    return final and error.__cause__ is None
