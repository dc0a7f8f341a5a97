"""Checks of episodes as wholes: counts, splits, lengths, duplicates."""

import hashlib
from collections.abc import Iterator

import numpy as np

from vla_jax.data.checks.finding import Finding, Sample, some
from vla_jax.data.index import Index

_FAR_LENGTH = 10  # times the median


def check_episodes(sample: Sample) -> Iterator[Finding]:
    """All checks of this file."""
    yield _check_shapes(sample.index)
    yield _check_corrupt(sample.index)
    yield _check_splits(sample.index)
    yield _check_lengths(sample.index)
    yield _check_success(sample.index)
    yield _check_duplicates(sample)


def _check_shapes(index: Index) -> Finding:
    cameras = ", ".join(index.cameras) or "none"
    optional = {
        "poses": index.pose is not None,
        "depth": bool(index.depth_spans),
        "camera matrices": bool(index.camera_matrices),
        "success": index.success is not None,
    }
    has = ", ".join(key for key, present in optional.items() if present) or "none"
    # Indexing has refused other shapes and whatever is not finite.
    return Finding(
        "ok",
        "shapes",
        f"Every step has {index.action.shape[1]} action and {index.proprio.shape[1]} "
        f"proprio dimensions, all finite; cameras: {cameras}; of what is optional: "
        f"{has}.",
    )


def _check_corrupt(index: Index) -> Finding:
    skipped = index.counts["skipped"]
    if not skipped:
        return Finding("ok", "shards", f"0 of {len(index.shards)} shards are damaged.")
    return Finding(
        "warning",
        "shards",
        f"{skipped} episodes are corrupt and were left out.",
        "Download their shards again: " + "; ".join(index.corrupt[:3]) + ".",
    )


def _check_splits(index: Index) -> Finding:
    counts = ", ".join(
        f"{count:,} in '{split}'" for split, count in index.counts["episodes"].items()
    )
    if index.counts["episodes"].get(index.validation_split):
        return Finding("ok", "splits", f"Episodes: {counts}.")
    return Finding(
        "warning",
        "splits",
        f"No episode is held out for validation: {counts}.",
        "Give the spec a `holdout` above 0, or the data set a split 'val'.",
    )


def _check_lengths(index: Index) -> Finding:
    lengths = index.num_episode_steps
    median = float(np.median(lengths))
    short = np.flatnonzero(lengths < 2)
    if len(short):
        return Finding(
            "warning",
            "episode lengths",
            f"{len(short)} of {len(lengths)} episodes have a single step.",
            "A chunk of actions needs more: check how the episodes were cut.",
            some(short),
        )
    far = np.flatnonzero(
        (lengths > _FAR_LENGTH * median) | (lengths * _FAR_LENGTH < median)
    )
    if len(far):
        return Finding(
            "warning",
            "episode lengths",
            f"{len(far)} of {len(lengths)} episodes are over {_FAR_LENGTH} times "
            f"longer or shorter than the median of {median:g} steps, such as episode "
            f"{far[0]} with {lengths[far[0]]}.",
            "Look for recordings that were not stopped, or cut off at once.",
            some(far),
        )
    seconds = median / index.spec.control_hz
    return Finding(
        "ok",
        "episode lengths",
        f"Episodes have {lengths.min()} to {lengths.max()} steps; the median is "
        f"{median:g}, {seconds:.3g} s.",
    )


def _check_success(index: Index) -> Finding:
    if index.success is None:
        return Finding("skipped", "success", "No episode says whether it succeeded.")
    known, done = int((index.success >= 0).sum()), int((index.success == 1).sum())
    said = f"{done:,} of {known:,} episodes that say so have succeeded."
    if done < 0.5 * known:
        failed = np.flatnonzero(index.success == 0)
        remedy = "Leave failures out, unless the policy is to learn from them."
        return Finding("warning", "success", said, remedy, some(failed))
    return Finding("ok", "success", said)


def _check_duplicates(sample: Sample) -> Finding:
    """Looks at all episodes: of a sample, few pairs would be complete."""
    index = sample.index
    digests = np.empty(index.num_episodes, np.uint64)
    for episode in sample.track(range(index.num_episodes), "duplicates"):
        digests[episode] = _digest(sample, episode)
    order = np.argsort(digests, kind="stable")
    same = digests[order][1:] == digests[order][:-1]
    pairs = zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True)
    copies = [(one, two) for one, two in pairs if _look_alike(sample, one, two)]
    if not copies:
        return Finding(
            "ok",
            "duplicate episodes",
            f"No two of {index.num_episodes:,} episodes are the same.",
        )
    crossing = sum(index.split[one] != index.split[two] for one, two in copies)
    leak = (
        f" {crossing} of them lie in another split than the original, so that "
        "validation would measure memory."
        if crossing
        else ""
    )
    one, two = copies[0]
    return Finding(
        "warning",
        "duplicate episodes",
        f"{len(copies)} of {index.num_episodes:,} episodes are copies, such as {two} "
        f"of {one}.{leak}",
        "Write the data set again without them.",
        some(two for _, two in copies),
    )


def _digest(sample: Sample, episode: int) -> int:
    """What an episode's numbers are, in 64 bits."""
    steps = sample.steps(episode)
    digest = hashlib.blake2b(digest_size=8)
    for array in (sample.index.action, sample.index.proprio):
        digest.update(np.ascontiguousarray(array[steps]).tobytes())
    return int.from_bytes(digest.digest(), "little")


def _look_alike(sample: Sample, one: int, two: int) -> bool:
    """Whether the images at both ends and in the middle are the same, byte by byte."""
    first, second = sample.steps(one), sample.steps(two)
    length = first.stop - first.start
    if length != second.stop - second.start:
        return False
    read = sample.index.read_image
    return all(
        read(camera, first.start + at) == read(camera, second.start + at)
        for camera in sample.index.cameras
        for at in {0, length // 2, length - 1}
    )
