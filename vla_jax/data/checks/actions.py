"""Checks of actions and proprio, dimension by dimension: ranges, kinds, no-ops."""

from collections.abc import Iterator, Sequence

import numpy as np

from vla_jax.data.checks.finding import Finding, Sample, some
from vla_jax.data.index import Index
from vla_jax.data.statistics import Statistics

_BLOCK = 65536  # steps in memory at a time
_NO_OP = 1e-3  # a movement below this share of the usual range counts as none
_FULL_TURN = 0.3  # how near to 2 pi a jump must be, in radians


def check_actions(sample: Sample) -> Iterator[Finding]:
    """All checks of this file."""
    index = sample.index
    kinds = {"action": index.spec.action, "proprio": [""] * index.proprio.shape[1]}
    for key, of_dimensions in kinds.items():
        yield from _check_ranges(key, index.statistics[key], of_dimensions)
    yield from _check_kinds(index)
    yield _check_turns(sample)
    yield _check_no_ops(index)


def _check_ranges(
    key: str, stats: Statistics, kinds: Sequence[str]
) -> Iterator[Finding]:
    span = stats.q99 - stats.q01
    name, fine = key.capitalize(), True
    for d, kind in enumerate(kinds):
        if kind == "gripper":
            continue
        beyond = max(stats.max[d] - stats.q99[d], stats.q01[d] - stats.min[d])
        if stats.tiny[d]:
            fine = False
            yield Finding(
                "warning",
                f"{key} ranges",
                f"{name} dimension {d} is constant ({stats.mean[d]:.4g}).",
                "It is normalized to 0 and played back as that constant; leave it out "
                "if the robot does not have it."
                if key == "action"
                else "It is normalized to 0: leave it out, or check that the "
                "standardize function takes the right column.",
            )
        elif beyond > 10 * max(span[d], stats.std[d]):
            fine = False
            yield Finding(
                "warning",
                f"{key} ranges",
                f"{name} dimension {d} has outliers: 98 % lie in "
                f"[{stats.q01[d]:.3g}, {stats.q99[d]:.3g}], the rest reaches from "
                f"{stats.min[d]:.3g} to {stats.max[d]:.3g}.",
                f"Normalize {key} by 'quantile', not by 'min_max' or 'mean_std'.",
            )
    if fine:
        yield Finding(
            "ok",
            f"{key} ranges",
            f"No {key} dimension is constant or has far outliers "
            f"({stats.count:,} training steps).",
        )


def _check_kinds(index: Index) -> Iterator[Finding]:
    stats, fine = index.statistics["action"], True
    for d, kind in enumerate(index.spec.action):
        if kind == "relative" and abs(stats.mean[d]) > 5 * stats.std[d] > 0:
            fine = False
            yield Finding(
                "warning",
                "action kinds",
                f"Action dimension {d} is declared relative but stays around "
                f"{stats.mean[d]:.3g}, as absolute ones do.",
                "Check the kinds in the spec: what follows an episode's last action "
                "depends on them.",
            )
    if fine:
        yield Finding(
            "ok",
            "action kinds",
            "No dimension that is declared relative stays far from 0.",
        )


def _check_turns(sample: Sample) -> Finding:
    """Looks for angles that jump by a full turn where they wrap."""
    index = sample.index
    found: dict[str, list[int]] = {}
    for episode in sample.episodes.tolist():
        steps = sample.steps(episode)
        for key, array in (("proprio", index.proprio), ("action", index.action)):
            jumps = np.abs(np.diff(array[steps], axis=0))
            turns = (np.abs(jumps - 2 * np.pi) < _FULL_TURN).any(0)
            # Only within one turn: elsewhere a jump of 6.3 means something else.
            turns &= np.abs(array[steps]).max(0) < np.pi + _FULL_TURN
            for d in np.flatnonzero(turns).tolist():
                found.setdefault(f"{key.capitalize()} dimension {d}", []).append(
                    episode
                )
    if not found:
        return Finding("ok", "angles", "No dimension jumps by a full turn.")
    episodes = next(iter(found.values()))
    jump = "jumps" if len(found) == 1 else "jump"
    return Finding(
        "warning",
        "angles",
        f"{', '.join(found)} {jump} by a full turn, as angles do where they wrap "
        f"(first in episode {episodes[0]}).",
        "Give the angle as sine and cosine, unwrap it, or turn its zero away from "
        "where the robot works.",
        some(episodes),
    )


def _check_no_ops(index: Index) -> Finding:
    moving = np.array([kind == "relative" for kind in index.spec.action])
    if not moving.any():
        return Finding("skipped", "no-op steps", "No action dimension is relative.")
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
        return Finding(
            "warning",
            "no-op steps",
            f"{share:.0%} of the steps do nothing: no movement, no gripper.",
            "Policies learn to stand still from them: leave such steps out when the "
            "data set is written.",
        )
    return Finding("ok", "no-op steps", f"{share:.1%} of the steps do nothing.")
