"""Builds the index of a data set: every shard in parallel, then one merge.

    <out>/index.json            what the index is of, splits, statistics, counts
          <array>.npy           see `vla_jax.data.index.Index`
          languages.json
          statistics.npz        states of the statistics, to merge over data sets

Shards that are done wait in a hidden folder beside `out`; a build that was killed
continues there. The finished index appears in one step.
"""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vla_jax.data.digest import source_with_helpers
from vla_jax.data.features import FeatureSpec
from vla_jax.data.merge import merge_shards
from vla_jax.data.remote import file_sizes
from vla_jax.data.rlds import RLDSFolder, Shard, holds_depth
from vla_jax.data.shard import ShardJob, index_shard, open_view
from vla_jax.data.standardize import DatasetSpec
from vla_jax.data.tfrecord import count_records

FORMAT = 4  # raised whenever the content of an index changes
VALIDATION_SPLITS = ("val", "validation", "test")

# Data that a process must have to be worth its start, which takes a second or two; it
# indexes about that much in one.
_WORKER_BYTES = 512 * 2**20


def build_at(
    folder: RLDSFolder,
    spec: DatasetSpec,
    out: Path,
    wanted: dict,
    *,
    num_workers: int | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
) -> Path:
    """Builds the index of `folder` in `out`, unless a valid one is there.

    `wanted` is the `fingerprint` of the two.

    Raises:
        CorruptRecord: for a shard that cannot be read, unless `skip_corrupt`.
        ValueError: when the data does not fit the spec.
    """
    if out.exists() and any(out.iterdir()) and not (out / "index.json").exists():
        raise ValueError(f"{out} is not empty and no index: name another folder.")
    check_cameras(folder, spec)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = _staging(out, wanted)
    with _lock(out.parent / f".{out.name}.lock"):
        if not why_rebuild(out, wanted):  # another process has built it meanwhile
            return out
        for stale in out.parent.glob(f".{out.name}.building-*"):
            if stale != staging:
                shutil.rmtree(stale)
        staging.mkdir(exist_ok=True)
        jobs, splits = _jobs(folder, spec, staging, skip_corrupt)
        _run(jobs, spec, num_workers, progress)
        merged = staging / "merged"
        shutil.rmtree(merged, ignore_errors=True)
        content = merge_shards(jobs, splits, merged)
        content |= {"fingerprint": wanted, "name": spec.name}
        content |= describe_cameras(folder, spec)
        (merged / "index.json").write_text(json.dumps(content, indent=1) + "\n")
        if out.exists():
            os.replace(out, staging / "replaced")
        os.replace(merged, out)
        remove_staging(out, wanted)
    for warning in tiny_range_warnings(spec.name, content["statistics"]):
        print(warning)
    skipped = content["counts"]["skipped"]
    if skipped:
        print(f"Left out {skipped} corrupt episodes of {folder.path}:")
        for reason in content["corrupt"][:10]:
            print(f"  {reason}")
    return out


def tiny_range_warnings(name: str, statistics: dict) -> list[str]:
    """A sentence for each dimension that hardly varies.

    Args:
        name: of the data set.
        statistics: `Statistics.to_json()` of "action" and "proprio".
    """
    return [
        f"Warning: {key} dimension {d} of data set {name!r} hardly varies, from "
        f"{stats['min'][d]:.6g} to {stats['max'][d]:.6g}: it is normalized to 0."
        for key, stats in statistics.items()
        for d in np.flatnonzero(stats["tiny"]).tolist()
    ]


def remove_staging(out: Path, wanted: dict):
    """Removes what the build of a finished index left when it was killed."""
    staging = _staging(out, wanted)
    if staging.exists():
        shutil.rmtree(staging, ignore_errors=True)  # others may do so as well


def fingerprint(folder: RLDSFolder, spec: DatasetSpec) -> dict:
    """What an index depends on; any difference rebuilds it."""
    paths = [
        (split, shard.path)
        for split, shards in folder.splits.items()
        for shard in shards
    ]
    sizes = file_sizes([path for _, path in paths])
    shards = [
        [split, Path(path).name, size]
        for (split, path), size in zip(paths, sizes, strict=True)
    ]
    return {
        "format version": FORMAT,
        "shards (names or sizes)": _digest(shards),
        "features of the data set": _digest(
            {key: vars(value) for key, value in folder.features.items()}
        ),
        "cameras": [dict(spec.cameras), dict(spec.depth)],
        "action kinds": list(spec.action),
        "holdout": spec.holdout,
        "standardize function": _standardize_digest(spec),
    }


def why_rebuild(out: Path, wanted: dict) -> str:
    """Why the index in `out` cannot be used; empty when it can."""
    try:
        found = json.loads((out / "index.json").read_text())["fingerprint"]
    except FileNotFoundError:
        return "there is none yet"
    except (ValueError, KeyError):
        return "its index.json cannot be read"
    changed = [key for key in wanted if found.get(key) != wanted[key]]
    return f"what changed: {', '.join(changed)}" if changed else ""


def check_cameras(folder: RLDSFolder, spec: DatasetSpec):
    """Checks that every camera of a spec names an image of the data set.

    Raises:
        ValueError: naming the camera and the images that the data set has.
    """
    for kind, cameras in (("camera", spec.cameras), ("depth camera", spec.depth)):
        for camera, key in cameras.items():
            fits = _is_image if kind == "camera" else holds_depth
            known = sorted(
                name
                for name, feature in folder.features.items()
                if name.startswith("steps/") and fits(feature)
            )
            if key not in known:
                what = "images" if kind == "camera" else "images and tensors of h, w"
                raise ValueError(
                    f"The {kind} {camera!r} of data set {spec.name!r} is to come from "
                    f"{key!r}, but {folder.path} has only the {what} {known}."
                )


def describe_cameras(folder: RLDSFolder, spec: DatasetSpec) -> dict[str, dict]:
    """How "image" and "depth" of every camera are stored, for `index.json`."""
    return {
        kind: {
            camera: {"feature": key, **vars(folder.features[key])}
            for camera, key in names.items()
        }
        for kind, names in (("image", spec.cameras), ("depth", spec.depth))
    }


def plan_shards(
    folder: RLDSFolder, spec: DatasetSpec
) -> Iterator[tuple[str, Shard, np.ndarray, str]]:
    """Lists the shards in the order that numbers the episodes, train first.

    Yields:
        The split of a shard, the shard, bool `[num_examples]`, True for the episodes
        that enter the statistics, and the split of those held out.

    Raises:
        ValueError: when there is no split "train".
    """
    if "train" not in folder.splits:
        raise ValueError(
            f"{folder.path} has no split 'train', only {sorted(folder.splits)}."
        )
    hold_out = spec.holdout > 0 and not (set(VALIDATION_SPLITS) & set(folder.splits))
    for split in sorted(folder.splits, key=lambda name: name != "train"):
        shards = [_counted(shard) for shard in folder.splits[split]]
        total = sum(shard.num_examples for shard in shards)
        counted = np.full(total, split == "train")
        if split == "train" and hold_out:
            counted[_held_out(total, spec.holdout)] = False
        held_out = "val" if split == "train" and hold_out else split
        start = 0
        for shard in shards:
            part = counted[start : start + shard.num_examples]
            start += shard.num_examples
            yield split, shard, part, held_out


def _is_image(feature: FeatureSpec) -> bool:
    return feature.kind == "image"


def _staging(out: Path, wanted: dict) -> Path:
    return out.parent / f".{out.name}.building-{_digest(wanted)}"


def _standardize_digest(spec: DatasetSpec) -> str:
    if spec.source:  # a user's own file, with whatever helpers it has
        return _digest(Path(spec.source.rpartition(":")[0]).read_text())
    try:
        return _digest(source_with_helpers(spec.standardize))
    except (OSError, TypeError):  # typed in a shell, or a callable object
        code = getattr(spec.standardize, "__code__", None)
        return _digest(code.co_code.hex() if code else repr(type(spec.standardize)))


def _digest(content) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _jobs(folder: RLDSFolder, spec: DatasetSpec, staging: Path, skip_corrupt: bool):
    """One job per shard, and the split that its episodes belong to, train first.

    Returns:
        The jobs, and for each the names `(split, split of what is held out)`.
    """
    jobs, splits = [], []
    for split, shard, counted, held_out in plan_shards(folder, spec):
        out = staging / f"shard-{len(jobs):05d}.npz"
        jobs.append(ShardJob(shard, spec, folder.features, counted, out, skip_corrupt))
        splits.append((split, held_out))
    return jobs, splits


def _held_out(num_episodes: int, share: float) -> np.ndarray:
    """Which training episodes are held out: the same in every build."""
    count = round(num_episodes * share)
    if share > 0 and num_episodes > 1:
        count = max(count, 1)
    return np.random.default_rng(0).permutation(num_episodes)[:count]


def _counted(shard: Shard) -> Shard:
    if shard.num_examples is not None:
        return shard
    view = open_view(shard.path, ahead=0)  # only headers are looked at
    return Shard(shard.path, count_records(view, shard.path))


def _run(
    jobs: list[ShardJob], spec: DatasetSpec, num_workers: int | None, progress: bool
):
    """Indexes the shards, each once, in as many processes as are worth their start."""
    if num_workers is None:
        size = sum(file_sizes([job.shard.path for job in jobs]))
        num_workers = min(os.cpu_count() or 1, size // _WORKER_BYTES)
    num_workers = min(num_workers, len(jobs))
    if num_workers > 1 and not _picklable(spec):
        print(f"{spec.standardize} is in no importable file: indexing in one process.")
        num_workers = 1
    bar = tqdm(total=len(jobs), unit="shard", desc="index", disable=not progress)
    with bar:
        if num_workers <= 1:
            for job in jobs:
                index_shard(job)
                bar.update()
            return
        # Processes are spawned: forking one that runs JAX's threads can hang it.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_workers, mp_context=context) as pool:
            futures = [pool.submit(index_shard, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "A worker of the index died, most likely for want of memory. Run "
                    "again, with fewer --workers: finished shards are kept."
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _picklable(spec: DatasetSpec) -> bool:
    """Whether a worker process can find the standardize function."""
    if not spec.source and spec.standardize.__module__ == "__main__":
        return False
    try:
        pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Waits until no other process builds the same index."""
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes
        yield
