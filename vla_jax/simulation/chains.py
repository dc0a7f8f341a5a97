"""CALVIN's metric: how many instructions in a row a policy carries out.

A chain is a list of instructions, five in CALVIN (Mees et al., 2022), that are given
one after the other without a reset; the first failure ends it. CALVIN's simulator is
not part of this package; `recorded.py` reads episodes that were played elsewhere.
"""

import math
from collections.abc import Mapping, Sequence

from vla_jax.simulation.intervals import wilson_interval
from vla_jax.simulation.rollout import Result

LENGTH = 5


def chain_lengths(results: Sequence[Result], length: int = LENGTH) -> dict[int, int]:
    """How many instructions of each chain were carried out before the first failure.

    Args:
        results: episodes in any order; those without a `chain` are left out.
        length: instructions of a whole chain.

    Returns:
        Number of the chain to a count from 0 to `length`.

    Raises:
        ValueError: a chain with a gap, with episodes after a failure or behind its end,
            or one that ends although nothing failed.
    """
    chains: dict[int, dict[int, bool]] = {}
    for result in results:
        if result.chain is None:
            continue
        number, place = result.chain
        steps = chains.setdefault(number, {})
        if place in steps:
            raise ValueError(f"Chain {number} has place {place} twice.")
        steps[place] = result.success
    counts = {}
    for number, steps in sorted(chains.items()):
        places = sorted(steps)
        if places != list(range(len(places))) or len(places) > length:
            raise ValueError(
                f"Chain {number} has the places {places}; expected 0, 1, ... without "
                f"gaps, at most {length}."
            )
        wins = sum(steps.values())
        if not all(steps[place] for place in places[:-1]):
            raise ValueError(f"Chain {number} goes on after a failure.")
        if wins == len(places) < length:
            raise ValueError(
                f"Chain {number} ends after {wins} of {length} instructions though "
                "none failed."
            )
        counts[number] = wins
    return counts


def summarize_chains(lengths: Sequence[int], length: int = LENGTH, z: float = 1.96):
    """Shares of chains with at least 1, 2, ... successes, and the average length.

    Args:
        lengths: successes of each chain, from `chain_lengths`.
        length: instructions of a whole chain.
        z: quantile of the normal distribution for the intervals.

    Returns:
        A JSON dict: `chains`; `in_a_row`, "1" to "5" to how many were `reached`, the
        `success_rate` and its Wilson `interval`; `average_length`, which is the sum of
        these rates, with the `interval` of a mean.

    Raises:
        ValueError: no chains, or an impossible length.
    """
    count = len(lengths)
    if not count or min(lengths) < 0 or max(lengths) > length:
        raise ValueError(
            f"The lengths of {count} chains are {sorted(set(lengths))}; expected some, "
            f"from 0 to {length}."
        )
    rows = {}
    for needed in range(1, length + 1):
        reached = sum(one >= needed for one in lengths)
        rows[str(needed)] = {
            "reached": reached,
            "success_rate": reached / count,
            "interval": list(wilson_interval(reached, count, z)),
        }
    mean = sum(lengths) / count
    variance = sum((one - mean) ** 2 for one in lengths) / max(count - 1, 1)
    spread = z * math.sqrt(variance / count)
    return {
        "chains": count,
        "in_a_row": rows,
        "average_length": mean,
        "interval": [max(0.0, mean - spread), min(float(length), mean + spread)],
    }


def format_chains(report: Mapping) -> str:
    """The summary as lines of text."""
    lines = [f"instructions in a row, of {report['chains']} chains:"]
    for needed, row in report["in_a_row"].items():
        low, high = row["interval"]
        lines.append(
            f"  {needed}  {row['success_rate']:7.1%}  {row['reached']:>6}  "
            f"{low:.1%} to {high:.1%}"
        )
    low, high = report["interval"]
    mean = f"{report['average_length']:.2f}"
    return "\n".join([*lines, f"average length {mean}, {low:.2f} to {high:.2f}"])
