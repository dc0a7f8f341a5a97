"""Merges indexed shards into the arrays of an index, one shard in memory at a time."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from vla_jax.data.shard import ShardJob, pad, read_json
from vla_jax.data.statistics import Streaming

# Arrays with one row per step, by the name before the camera.
_STEP_DTYPES = {
    "proprio": np.float32,
    "action": np.float32,
    "pose": np.float32,
    "objects": np.float32,
    "intrinsics": np.float32,
    "extrinsics": np.float32,
    "language": np.int32,
    "next_event": np.int32,
    "image": np.int64,
    "depth": np.int64,
}
_SPANS = ("image/", "depth/")


def merge_shards(
    jobs: list[ShardJob], splits: list[tuple[str, str]], out: Path
) -> dict:
    """Writes the arrays of an index into the folder `out`.

    Args:
        jobs: shards that `index_shard` has done.
        splits: per job the split of its episodes and of those held out.
        out: a folder that does not exist yet.

    Returns:
        Splits, shards, counts and statistics for `index.json`.

    Raises:
        ValueError: when shards differ in width, or hold no training episode.
    """
    out.mkdir()
    widths, num_steps = _scan(jobs)
    split_names = list(dict.fromkeys(name for pair in splits for name in pair))
    arrays = {key: _create(out, key, num_steps, width) for key, width in widths.items()}
    episode_of_step = _create(out, "episode", num_steps, None)
    languages: dict[str, int] = {}
    statistics: dict[str, Streaming] = {}
    counts = {"episodes": Counter(), "steps": Counter(), "skipped": 0}
    episodes, corrupt, start, num_episodes = [], [], 0, 0
    for number, (job, (split, held_out)) in enumerate(zip(jobs, splits, strict=True)):
        with np.load(job.out) as shard:
            errors = read_json(shard["corrupt"])
            corrupt += [f"{job.shard.path} at byte {at}: {why}" for at, why in errors]
            record = shard["record"]
            # One broken length hides every episode after it.
            counts["skipped"] += max(len(job.counted) - len(record), len(errors))
            if not len(record):
                continue
            lengths = shard["num_episode_steps"]
            stop = start + int(lengths.sum())
            texts = read_json(shard["languages"])
            ids = [languages.setdefault(text, len(languages)) for text in texts]
            table = np.array([*ids, -1], np.int32)  # -1 stays -1
            for key, array in arrays.items():
                array[start:stop] = _rows(shard, key, array, table, number)
            numbers = np.arange(num_episodes, num_episodes + len(lengths))
            episode_of_step[start:stop] = np.repeat(numbers, lengths)
            names = np.where(job.counted[record[:, 0]], split, held_out)
            episodes.append(
                {
                    "first_step": start + np.cumsum(lengths, dtype=np.int64) - lengths,
                    "num_episode_steps": lengths,
                    "split": np.array([split_names.index(n) for n in names], np.int8),
                    "shard": np.full(len(lengths), number, np.int32),
                    "record": record[:, 1:],
                    "success": shard["success"],
                }
            )
            for name, length in zip(names.tolist(), lengths.tolist(), strict=True):
                counts["episodes"][name] += 1
                counts["steps"][name] += length
            _merge_statistics(shard, statistics)
        start, num_episodes = stop, num_episodes + len(lengths)
    for array in (*arrays.values(), episode_of_step):
        if isinstance(array, np.memmap):
            array.flush()
    for key in episodes[0]:
        rows = np.concatenate([part[key] for part in episodes])
        if key != "success" or np.any(rows >= 0):
            np.save(out / f"{key}.npy", rows)
    (out / "languages.json").write_text(json.dumps(list(languages)))
    if not statistics:
        raise ValueError(
            "No episode is left for training: every one is held out or corrupt."
        )
    states = {
        f"{key}/{name}": array
        for key, streaming in statistics.items()
        for name, array in streaming.state().items()
    }
    np.savez(out / "statistics.npz", **states)
    return {
        "num_steps": num_steps,
        "num_episodes": num_episodes,
        "split_names": split_names,
        "shards": [Path(job.shard.path).name for job in jobs],
        "counts": counts,
        "corrupt": corrupt,
        "statistics": {k: v.finish().to_json() for k, v in statistics.items()},
    }


def _scan(jobs: list[ShardJob]) -> tuple[dict[str, int | None], int]:
    """Widths of the arrays with one row per step, and the number of steps."""
    widths: dict[str, int | None] = {}
    num_steps = 0
    for job in jobs:
        with np.load(job.out) as shard:
            if "action" not in shard:
                continue
            found = {}
            for key in shard.files:
                if key.partition("/")[0] in _STEP_DTYPES:
                    rows = shard[key]
                    found[key] = rows.shape[1] if rows.ndim == 2 else None
            language = found.pop("language")
            num_steps += len(shard["action"])
        width = max(language, widths.pop("language", 0))
        if widths and found != widths:
            raise ValueError(
                f"The episodes of {job.shard.path} have the widths {found}; those of "
                f"the shards before {widths}."
            )
        widths = found | {"language": width}
    if not num_steps:
        names = [job.shard.path for job in jobs[:3]]
        raise ValueError(f"There is no readable episode in {names}.")
    return widths, num_steps


def _create(out: Path, key: str, num_steps: int, width: int | None) -> np.ndarray:
    """An array file with one row per step."""
    dtype = _STEP_DTYPES.get(key.partition("/")[0], np.int32)
    if key.startswith(_SPANS):
        width = 3
    shape = (num_steps,) if width is None else (num_steps, width)
    path = out / (key.replace("/", "_") + ".npy")
    if width == 0:  # cannot be mapped
        np.save(path, np.zeros(shape, dtype))
        return np.zeros(shape, dtype)
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _rows(shard, key: str, array: np.ndarray, table: np.ndarray, number: int):
    """The rows that a shard contributes to one array."""
    rows = shard[key]
    if key == "language":
        return pad(table[rows], array.shape[1])
    if key.startswith(_SPANS):
        return np.insert(rows, 0, number, axis=1)
    return rows


def _merge_statistics(shard, statistics: dict[str, Streaming]):
    for key in ("action", "proprio"):
        prefix = f"statistics/{key}/"
        state = {
            name.removeprefix(prefix): shard[name]
            for name in shard.files
            if name.startswith(prefix)
        }
        if state:
            width = state["moments"].shape[1]
            total = statistics.setdefault(key, Streaming(width))
            total.merge(Streaming.from_state(state))
