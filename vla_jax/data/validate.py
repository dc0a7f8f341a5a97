"""Checks an indexed data set and reports what would spoil training, in sentences."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vla_jax.data.checks.actions import check_actions
from vla_jax.data.checks.directions import check_motion
from vla_jax.data.checks.episodes import check_episodes
from vla_jax.data.checks.finding import Finding, Report, Sample, ordered
from vla_jax.data.checks.gripper import check_gripper
from vla_jax.data.checks.images import check_images
from vla_jax.data.checks.language import check_language
from vla_jax.data.checks.motion import measure_motion
from vla_jax.data.checks.page import write_validation_page
from vla_jax.data.checks.pose import check_pose
from vla_jax.data.checks.steps import check_recordings
from vla_jax.data.index import Index
from vla_jax.data.statistics import Statistics


def validate(
    index: Index, *, num_episodes: int = 100, progress: bool = False
) -> tuple[Report, Sample]:
    """Looks through a data set in constant memory.

    Counts, lengths, ranges, duplicates, no-op steps, instructions and missing images
    are of all episodes; what has to read episodes or decode images, of a sample.

    Args:
        index: of the data set.
        num_episodes: size of the sample; 0 takes all.
        progress: show progress bars.

    Returns:
        The report, and the sample for `write_reports`.
    """
    sample = Sample.draw(index, num_episodes, progress=progress)
    report = Report(
        name=index.spec.name,
        data_path=index.data_path,
        scope=sample.scope,
        table=describe(index),
        findings=ordered(_check(sample)),
    )
    return report, sample


def write_reports(
    folder: str | os.PathLike, report: Report, sample: Sample | None
) -> Path:
    """Writes `report.html` and `report.json` into a folder; gives the former.

    `report.json` has, besides the findings, the statistics and lengths of the data set
    if there is a sample.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = report.to_json()
    if sample is not None:
        index = sample.index
        lengths = index.num_episode_steps
        content |= {
            "episodes": index.num_episodes,
            "steps": index.num_steps,
            "counts_by_split": index.counts,
            "sampled_episodes": sample.episodes.tolist(),
            "episode_length": {
                "min": int(lengths.min()),
                "median": float(np.median(lengths)),
                "max": int(lengths.max()),
            },
            "num_instructions": len(index.languages),
            "statistics": {k: v.to_json() for k, v in index.statistics.items()},
        }
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    return write_validation_page(folder / "report.html", report, sample)


def describe(index: Index) -> str:
    """Sizes, ranges and instructions of a data set as text."""
    lengths = index.num_episode_steps
    hours = index.num_steps / index.spec.control_hz / 3600
    middle = int(np.median(lengths))
    lines = [
        f"{index.spec.name}: {index.data_path}",
        f"  {index.num_episodes:,} episodes, {index.num_steps:,} steps "
        f"({hours:.2f} h at {index.spec.control_hz:g} Hz)",
    ]
    for split, count in index.counts["episodes"].items():
        lines.append(
            f"  {split}: {count:,} episodes, {index.counts['steps'][split]:,} steps"
        )
    lines.append(
        f"  episode length: {lengths.min()} to {lengths.max()}, median {middle}"
    )
    for kind, features in (
        ("camera", index.image_features),
        ("depth", index.depth_features),
    ):
        for camera, feature in features.items():
            shape = "x".join(str(size) for size in feature["shape"])
            lines.append(
                f"  {kind} {camera}: {feature['feature']}, {shape} {feature['dtype']} "
                f"{feature['encoding']}"
            )
    lines += _table("action", index.statistics["action"], index.spec.action)
    proprio = index.statistics["proprio"]
    lines += _table("proprio", proprio, [""] * len(proprio.mean))
    examples = ", ".join(repr(text) for text in index.languages[:3])
    such = f", such as {examples}" if examples else ""
    lines.append(f"  {len(index.languages):,} instructions{such}")
    return "\n".join(lines)


def _check(sample: Sample) -> Iterator[Finding]:
    yield from check_episodes(sample)
    yield from check_actions(sample)
    motion = measure_motion(sample)
    yield from check_motion(motion)
    yield from check_pose(sample, motion)
    yield from check_gripper(sample, motion)
    yield from check_recordings(sample)
    yield from check_images(sample)
    yield from check_language(sample)


def _table(name: str, stats: Statistics, kinds) -> list[str]:
    columns = ("min", "q01", "mean", "q99", "max", "std")
    head = "".join(f"{column:>10}" for column in columns)
    lines = [f"  {name:<22}{head}"]
    for d, kind in enumerate(kinds):
        values = "".join(f"{getattr(stats, column)[d]:10.4f}" for column in columns)
        constant = "  constant" if stats.tiny[d] else ""
        lines.append(f"    {d:>3} {kind:<16}{values}{constant}")
    return lines
