"""Checks an indexed data set and reports what would spoil training, in sentences."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from vla_jax.data.image import decode, decode_depth
from vla_jax.data.index import Index
from vla_jax.data.statistics import Statistics

_BLOCK = 65536  # steps in memory at a time
_NUM_IMAGES = 64  # decoded per camera
_FAR = 20.0  # metres; few robots look that far
_NO_OP = 1e-3  # a movement below this share of the usual range counts as none


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something wrong: what, and what to do about it.

    Attributes:
        is_error: True when training on the data makes no sense before it is fixed.
        problem, remedy: one sentence each.
    """

    is_error: bool
    problem: str
    remedy: str

    def __str__(self) -> str:
        kind = "ERROR" if self.is_error else "warning"
        return f"{kind}: {self.problem} {self.remedy}"


def validate(index: Index) -> tuple[str, list[Finding]]:
    """Looks through a whole data set in constant memory.

    Returns:
        A table of what the data set holds, and what is wrong with it, errors first.
    """
    findings = [
        *_check_counts(index),
        *_check_gripper(index),
        *_check_ranges(index),
        *_check_no_ops(index),
        *_check_images(index),
        *_check_depth(index),
        *_check_language(index),
    ]
    return describe(index), sorted(findings, key=lambda finding: not finding.is_error)


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
    lines.append(f"  {len(index.languages):,} instructions, such as {examples}")
    return "\n".join(lines)


def _table(name: str, stats: Statistics, kinds) -> list[str]:
    columns = ("min", "q01", "mean", "q99", "max", "std")
    head = "".join(f"{column:>10}" for column in columns)
    lines = [f"  {name:<22}{head}"]
    for d, kind in enumerate(kinds):
        values = "".join(f"{getattr(stats, column)[d]:10.4f}" for column in columns)
        constant = "  constant" if stats.tiny[d] else ""
        lines.append(f"    {d:>3} {kind:<16}{values}{constant}")
    return lines


def _check_counts(index: Index) -> Iterator[Finding]:
    skipped = index.counts["skipped"]
    if skipped:
        yield Finding(
            False,
            f"{skipped} episodes are corrupt and were left out.",
            "Download their shards again: " + "; ".join(index.corrupt[:3]),
        )
    if not index.counts["episodes"].get(index.validation_split):
        yield Finding(
            False,
            "No episode is held out for validation.",
            "Give the spec a `holdout` above 0, or the data set a split 'val'.",
        )
    short = int((index.num_episode_steps < 2).sum())
    if short:
        yield Finding(
            False,
            f"{short} episodes have a single step.",
            "A chunk of actions needs more: check how the episodes were cut.",
        )


def _check_gripper(index: Index) -> Iterator[Finding]:
    if index.spec.action[-1] != "gripper":
        return
    stats = index.statistics["action"]
    low, high = stats.min[-1], stats.max[-1]
    if low < -1e-3 or high > 1 + 1e-3:
        yield Finding(
            True,
            f"The gripper goes from {low:.3g} to {high:.3g}; the standard is 0 "
            "(closed) to 1 (open).",
            "Map it in the standardize function: from -1 open, 1 closed it is "
            "(1 - gripper) / 2.",
        )
        return
    if stats.tiny[-1]:
        yield Finding(
            False,
            f"The gripper never moves: it is always {stats.mean[-1]:.3g}.",
            "Check that the standardize function takes the right column.",
        )
        return
    closed = float(np.mean(index.action[index.first_step, -1] < 0.5))
    if closed > 0.8:
        yield Finding(
            False,
            f"{closed:.0%} of the episodes begin with a closed gripper (below 0.5).",
            "Most robots begin open: if yours does, the standardize function has the "
            "sign the wrong way round (1 = open, 0 = closed).",
        )


def _check_ranges(index: Index) -> Iterator[Finding]:
    stats = index.statistics["action"]
    span = stats.q99 - stats.q01
    for d, kind in enumerate(index.spec.action):
        if kind == "gripper":
            continue
        if stats.tiny[d]:
            yield Finding(
                False,
                f"Action dimension {d} is constant ({stats.mean[d]:.4g}).",
                "It is normalized to 0 and played back as that constant; leave it out "
                "if the robot does not have it.",
            )
        elif max(stats.max[d] - stats.q99[d], stats.q01[d] - stats.min[d]) > (
            10 * max(span[d], stats.std[d])
        ):
            yield Finding(
                False,
                f"Action dimension {d} has outliers: 98 % lie in "
                f"[{stats.q01[d]:.3g}, {stats.q99[d]:.3g}], the rest reaches from "
                f"{stats.min[d]:.3g} to {stats.max[d]:.3g}.",
                "Normalize actions by 'quantile', not by 'min_max' or 'mean_std'.",
            )
        if kind == "relative" and abs(stats.mean[d]) > 5 * stats.std[d] > 0:
            yield Finding(
                False,
                f"Action dimension {d} is declared relative but stays around "
                f"{stats.mean[d]:.3g}, as absolute ones do.",
                "Check the kinds in the spec: what follows an episode's last action "
                "depends on them.",
            )


def _check_no_ops(index: Index) -> Iterator[Finding]:
    moving = np.array([kind == "relative" for kind in index.spec.action])
    if not moving.any():
        return
    stats = index.statistics["action"]
    threshold = _NO_OP * np.maximum(np.abs(stats.q01), np.abs(stats.q99))
    idle = 0
    for start in range(0, index.num_steps, _BLOCK):
        # One step more than the block, to see the gripper before its first step.
        block = np.asarray(index.action[max(start - 1, 0) : start + _BLOCK])
        still = (np.abs(block) <= threshold)[:, moving].all(1)
        steady = np.ones(len(block), bool)
        steady[1:] = np.abs(np.diff(block[:, ~moving], axis=0)).max(1, initial=0) < 1e-3
        idle += int((still & steady)[int(start > 0) :].sum())
    share = idle / index.num_steps
    if share > 0.1:
        yield Finding(
            False,
            f"{share:.0%} of the steps do nothing: no movement, no gripper.",
            "Policies learn to stand still from them: leave such steps out when the "
            "data set is written.",
        )


def _check_images(index: Index) -> Iterator[Finding]:
    for camera, spans in index.image_spans.items():
        missing = sum(
            int((spans[start : start + _BLOCK, 2] == 0).sum())
            for start in range(0, len(spans), _BLOCK)
        )
        if missing:
            every = missing == index.num_steps
            yield Finding(
                every,
                f"Camera {camera!r} has no image in {missing:,} of "
                f"{index.num_steps:,} steps.",
                "Take another feature for it in the spec."
                if every
                else "They are masked in training.",
            )
        if missing < index.num_steps:
            yield from _check_pixels(index, camera)


def _check_pixels(index: Index, camera: str) -> Iterator[Finding]:
    """Decodes some images, spread over the data set, as training will."""
    expected = tuple(index.image_features[camera]["shape"][:2])
    steps = np.linspace(0, index.num_steps - 1, _NUM_IMAGES).astype(int)
    decoded = blank = 0
    for step in np.unique(steps).tolist():
        data = index.read_image(camera, step)
        if not data:
            continue
        where = f"The {camera!r} image of step {step}"
        try:
            pixels = decode(data)
        except ValueError as error:
            yield Finding(
                True,
                f"{where} cannot be decoded: {error}.",
                "Store it as JPEG or PNG, or leave its episode out.",
            )
            return
        size = pixels.shape[:2]
        if any(
            want not in (-1, have) for want, have in zip(expected, size, strict=True)
        ):
            yield Finding(
                True,
                f"{where} has the size {size}; the data set states {expected}.",
                "Write the data set again with the right shape.",
            )
            return
        decoded += 1
        blank += int(pixels.std() < 1)
    if decoded and blank / decoded > 0.5:
        yield Finding(
            False,
            f"{blank} of {decoded} images of camera {camera!r} are of a single color.",
            "Check the camera.",
        )


def _check_depth(index: Index) -> Iterator[Finding]:
    """Decodes some depth images, spread over the data set, as training will."""
    steps = np.unique(np.linspace(0, index.num_steps - 1, _NUM_IMAGES).astype(int))
    for camera, feature in index.depth_features.items():
        depth, middles = np.zeros((32, 32), np.float32), []
        scale = index.spec.depth_scale.get(camera)
        try:
            for step in steps.tolist():
                data = index.read_depth(camera, step)
                if data:
                    decode_depth(data, feature, depth, scale)
                    middles.append(float(np.median(depth)))
        except ValueError as error:
            yield Finding(
                True,
                f"The {camera!r} depth image of step {step} cannot be decoded: "
                f"{error}.",
                "Store it as PNG of one channel, or leave its episode out.",
            )
            continue
        middle = float(np.median(middles)) if middles else 0.0
        if not 0 < middle < _FAR:
            yield Finding(
                False,
                f"Camera {camera!r} sees {middle:.3g} m far in the median.",
                "Check `depth_scale` in the spec: it gives metres per unit.",
            )


def _check_language(index: Index) -> Iterator[Finding]:
    without = sum(
        int((index.language[start : start + _BLOCK] < 0).all(1).sum())
        for start in range(0, index.num_steps, _BLOCK)
    )
    if without:
        yield Finding(
            False,
            f"{without / index.num_steps:.0%} of the steps have no instruction.",
            "A policy that is told what to do needs one: see `language` in the "
            "standardize function.",
        )
    unclear = [text for text in index.languages if "\ufffd" in text]
    if unclear:
        yield Finding(
            False,
            f"{len(unclear)} instructions are not valid UTF-8, such as {unclear[0]!r}.",
            "Write them as UTF-8.",
        )
