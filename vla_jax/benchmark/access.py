"""How fast an index is made, and how fast it finds one frame among many episodes."""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vla_jax.benchmark.report import Row
from vla_jax.data.image import decode
from vla_jax.data.index import Index, open_index
from vla_jax.data.rlds import open_rlds

_BLOCK = 1 << 20  # bytes, as `cat` reads
_FRAMES = 1000  # of a turn of random access; as many before the first are not timed


def measure_index(path: str | Path, spec: str, *, turns: int) -> list[Row]:
    """Speed of indexing against reading the same files from the first byte to the last.

    Both begin in the same state: "cached" with all files in the page cache, otherwise
    with none (as far as the system lets go of them), as when a data set is new.

    Args:
      path: a data set on a local disk.
      spec: its entry.
      turns: measurements of each.
    """
    folder = open_rlds(path)
    files = [shard.path for shards in folder.splits.values() for shard in shards]
    size = sum(map(os.path.getsize, files)) / 1e6
    rows = []
    for state, prepare in (("", _forget), ("_cached", _read)):
        times: dict[Callable, list[float]] = {_read: [], _index: []}
        for _ in tqdm(range(turns), desc=f"index and read{state.replace('_', ' ')}"):
            for function, taken in times.items():
                prepare(files)
                with tempfile.TemporaryDirectory() as out:
                    arguments = (files,) if function is _read else (path, spec, out)
                    start = time.perf_counter()
                    function(*arguments)
                    taken.append(time.perf_counter() - start)
        read, index = times.values()
        pairs = zip(read, index, strict=True)
        rows += [
            Row.over(f"index/vs_read{state}", [a / b for a, b in pairs], "1"),
            Row.over(f"index/mb_per_s{state}", [size / t for t in index], "MB/s"),
            Row.over(f"read/mb_per_s{state}", [size / t for t in read], "MB/s"),
        ]
    return [*rows, Row("index/size_mb", size, "MB")]


def measure_access(index: Index, *, turns: int = 10, seed: int = 0) -> list[Row]:
    """Time from episode and step to pixels, each frame at random among all of them.

    The index has just been opened, and its arrays and the shards are in the page cache
    as far as the system has kept them there.

    Args:
      index: of a data set with many episodes.
      turns: of 1,000 frames each.
      seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    camera, times = index.cameras[0], []
    for _ in range((turns + 1) * _FRAMES):
        episode = int(rng.integers(index.num_episodes))
        step = int(rng.integers(index.num_episode_steps[episode]))
        start = time.perf_counter()
        decode(index.read_image(camera, int(index.first_step[episode]) + step))
        times.append(time.perf_counter() - start)
    milliseconds = np.reshape(times, (turns + 1, _FRAMES))[1:] * 1e3
    p50, p99 = np.percentile(milliseconds, (50, 99), axis=1).tolist()
    return [
        Row.over("access/p50_ms", p50, "ms"),
        Row.over("access/p99_ms", p99, "ms"),
        Row("access/episodes", index.num_episodes, "episodes"),
    ]


def _read(files: Sequence[str]) -> None:
    block = bytearray(_BLOCK)
    for name in files:
        with open(name, "rb", buffering=0) as file:
            while file.readinto(block):
                pass


def _index(path: str | Path, spec: str, out: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        open_index(path, spec, out=Path(out) / "index", progress=False)


def _forget(files: Sequence[str]) -> None:
    """Asks the system to drop files from the page cache."""
    for name in files:
        with open(name, "rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
