"""Checks of the gripper: range, what comes first, and whether closing precedes lifting.

The standard is 1 = open, 0 = closed. A standardize function with the sign the wrong way
round passes every check of shapes and ruins training; behavior tells the two apart.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from absl import logging

from vla_jax.data.checks.finding import Finding, Sample, some
from vla_jax.data.checks.motion import Motion
from vla_jax.data.index import Index

_BLOCK = 65536  # steps in memory at a time
_BETWEEN = (0.4, 0.6)  # commands that are neither open nor closed
_UNCLEAR = (0.2, 0.8)  # commands that a threshold of one half may take either way
_MANY = 0.1  # of the steps
_LIFT_SECONDS = 2.0
_LIFT_SHARE = 0.1  # of the range of heights in the episode


def check_gripper(sample: Sample, motion: Motion | None) -> Iterator[Finding]:
    """All checks of this file."""
    index = sample.index
    stats = index.statistics["action"]
    low, high = stats.min[-1], stats.max[-1]
    if index.spec.action[-1] != "gripper":
        yield Finding("skipped", "gripper", "The spec declares no gripper.")
    elif low < -1e-3 or high > 1 + 1e-3:
        yield Finding(
            "error",
            "gripper range",
            f"The gripper goes from {low:.3g} to {high:.3g}; the standard is 0 "
            "(closed) to 1 (open).",
            "Map it in the standardize function: from -1 open, 1 closed it is "
            "(1 - gripper) / 2.",
        )
    elif stats.tiny[-1]:
        yield Finding(
            "warning",
            "gripper range",
            f"The gripper never moves: it is always {stats.mean[-1]:.3g}.",
            "Check that the standardize function takes the right column.",
        )
    else:
        yield _check_middle(index) or Finding(
            "ok",
            "gripper range",
            f"The gripper goes from {low:.3g} to {high:.3g}, within 0 (closed) to 1 "
            "(open).",
        )
        yield _check_order(sample)
        yield _check_lifting(sample, motion)


def unclear_share(index: Index, *, sample: int = 10_000) -> float:
    """Share of the steps in which the gripper is told neither open nor closed.

    Args:
        index: of a data set; 0 if its action has no gripper.
        sample: steps to look at, at even distances.
    """
    if index.spec.action[-1] != "gripper":
        return 0.0
    told = index.action[:: max(1, len(index.action) // sample), -1]
    return float(np.mean((told > _UNCLEAR[0]) & (told < _UNCLEAR[1])))


def warn_undecided(indexes: Iterable[Index]) -> None:
    """Warns of data from which a head cannot learn to open or close the gripper.

    A head with `gripper_dims` takes commands above one half for open. Where many are
    in between, that makes of two commands one, such as "let it be" and "close".
    """
    for index in indexes:
        share = unclear_share(index)
        if share >= _MANY:
            logging.warning(
                "The head decides whether the gripper opens (gripper_dims), but in "
                "%.0f %% of the steps of %r it is told a number between %s and %s. "
                "Map such numbers to 0 (closed) or 1 (open) in the standardize "
                "function, or leave gripper_dims empty.",
                100 * share,
                index.spec.name,
                *_UNCLEAR,
            )


def _check_middle(index: Index) -> Finding | None:
    """Looks for commands in the middle, where open and closed cannot be told apart."""
    between = sum(
        int(np.sum((block > _BETWEEN[0]) & (block < _BETWEEN[1])))
        for start in range(0, index.num_steps, _BLOCK)
        for block in [index.action[start : start + _BLOCK, -1]]
    )
    share = between / index.num_steps
    if share < _MANY:
        return None
    return Finding(
        "warning",
        "gripper range",
        f"In {share:.0%} of the steps the gripper is told a number between "
        f"{_BETWEEN[0]} and {_BETWEEN[1]}, neither open nor closed.",
        "Gripper events take 0.5 and more for open: where such a number leaves the "
        "gripper as it is, repeat the last clear command in the standardize function.",
    )


def _check_order(sample: Sample) -> Finding:
    """Whether episodes begin open, and close before they open."""
    index = sample.index
    is_closed = index.action[index.first_step, -1] < 0.5
    closed = float(np.mean(is_closed))
    closing, opening = 0, []
    for episode in sample.episodes.tolist():
        events = _events(sample, episode)
        if len(events) and events[0][1]:
            closing += 1
        elif len(events):
            opening.append(episode)
    first = closing + len(opening)
    if closed > 0.8 or (first and len(opening) > 0.8 * first):
        begin = f"{closed:.0%} of the episodes begin with a closed gripper (below 0.5)"
        then = (
            f", and {len(opening)} of the {first} sampled ones in which it moves open "
            "it first"
            if first
            else ""
        )
        return Finding(
            "warning",
            "gripper convention",
            f"{begin}{then}.",
            "Most robots begin open: if yours does, the standardize function has the "
            "sign the wrong way round (1 = open, 0 = closed).",
            some(opening or np.flatnonzero(is_closed)),
        )
    is_open = index.action[index.first_step, -1] > 0.5
    begin = (
        f"{np.mean(is_open):.0%} of the episodes begin with an open gripper, "
        f"{closed:.0%} with a closed one"
    )
    then = (
        f"of {first} sampled ones in which it moves, {closing} close it first"
        if first
        else "in those sampled it never changes for three steps or more"
    )
    return Finding("ok", "gripper convention", f"{begin}; {then}.")


def _check_lifting(sample: Sample, motion: Motion | None) -> Finding:
    """Whether the hand rises after it has closed, rather than after it has opened."""
    if motion is None or not motion.has_height:
        return Finding(
            "skipped",
            "gripper and lifting",
            "No state is sure to be the height of the end effector.",
            "Return `pose` from the standardize function.",
        )
    index = sample.index
    states = index.pose if index.pose is not None else index.proprio
    ahead = max(1, round(_LIFT_SECONDS * index.spec.control_hz))
    rises: dict[bool, list[bool]] = {True: [], False: []}
    for episode in sample.episodes.tolist():
        height = np.asarray(states[sample.steps(episode)][:, 2])
        events = _events(sample, episode)
        ends = [step for step, _ in events] + [len(height)]
        for number, (step, closes) in enumerate(events):
            stop = min(ends[number + 1], step + ahead + 1)
            rise = height[step:stop].max() - height[step]
            rises[closes].append(bool(rise > _LIFT_SHARE * np.ptp(height) > 0))
    closings, openings = rises[True], rises[False]
    if not closings:
        return Finding(
            "skipped", "gripper and lifting", "No sampled episode closes the gripper."
        )
    lifted, after_opening = sum(closings), sum(openings)
    said = (
        f"{lifted} of {len(closings)} closings are followed by a rise of the end "
        f"effector within {_LIFT_SECONDS:g} s, and {after_opening} of {len(openings)} "
        "openings"
    )
    seldom = lifted < 0.2 * len(closings)
    if seldom and openings and after_opening > 0.5 * len(openings):
        return Finding(
            "warning",
            "gripper and lifting",
            f"{said}.",
            "Hands lift what they have grasped: check that 1 is open and 0 closed.",
        )
    return Finding("ok", "gripper and lifting", f"{said}.")


def _events(sample: Sample, episode: int) -> list[tuple[int, bool]]:
    """Steps at which the gripper changes for good, and whether it then closes."""
    steps = sample.steps(episode)
    at = np.flatnonzero(sample.index.next_event[steps] == 0)
    closes = sample.index.action[steps, -1][at] < 0.5
    return list(zip(at.tolist(), closes.tolist(), strict=True))
