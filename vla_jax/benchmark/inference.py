"""How long a policy takes for a chunk, from checked frames to actions on the host."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_jax.benchmark.report import Row
from vla_jax.serving.policy import PROGRAMS, Policy
from vla_jax.serving.timing import percentiles_ms

_TURNS = 10  # the arms take turns, so that a disturbance hits all of them

Call = Callable[[], Any]  # one prediction; returns when the actions are on the host
Arms = dict[str, tuple[int, Call]]  # what is run -> rows of a call, and the call


def measure_inference(policies: Mapping[str, Arms], *, num_calls: int) -> list[Row]:
    """Times calls of policies in turns.

    Several are compared with the first, arm by arm: `ratio` is the median over the
    turns of the time of a call, as a share of that of the first in the same turn.

    Args:
        policies: name, "" for a single one, to what `bundle_arms` gives.
        num_calls: calls of each arm.

    Raises:
        ValueError: no calls.
    """
    if num_calls < 1:
        raise ValueError(f"num_batches is {num_calls}; expected at least 1.")
    calls = {
        (policy, arm): call
        for policy, arms in policies.items()
        for arm, (_, call) in arms.items()
    }
    turns: dict[tuple[str, str], list[list[float]]] = {key: [] for key in calls}
    for turn in range(min(_TURNS, num_calls)):
        count = num_calls // _TURNS + (turn < num_calls % _TURNS)
        for key, call in calls.items():
            turns[key].append([_seconds(call) for _ in range(count)])
    rows = []
    for (policy, arm), parts in turns.items():
        name = "/".join(filter(None, ("inference", policy, arm)))
        seconds = [second for part in parts for second in part]
        rows += [
            Row(f"{name}_{key}", value, "ms")
            for key, value in percentiles_ms(seconds).items()
        ]
        size = policies[policy][arm][0]
        rows.append(Row(f"{name}_per_s", size * num_calls / sum(seconds), "chunks/s"))
    rows.append(Row("inference/calls", num_calls, "calls"))
    first, *others = policies
    for policy in others:
        for arm in policies[policy]:
            pairs = zip(turns[policy, arm], turns[first, arm], strict=True)
            ratios = [statistics.median(a) / statistics.median(b) for a, b in pairs]
            rows.append(Row.over(f"inference/{policy}/{arm}_ratio", ratios, "1"))
    return rows


def bundle_arms(folder: str | Path, batch_sizes: Sequence[int] = (1, 8)) -> Arms:
    """A bundle as the exported program and as the live model, for each batch size.

    Args:
        folder: of the bundle.
        batch_sizes: rows of a call; each size is an arm.

    Raises:
        ValueError: a bundle that cannot be loaded.
    """
    arms: Arms = {}
    for program in PROGRAMS:
        for size in batch_sizes:
            policy = Policy.load(folder, program=program, batch_sizes=(size,))
            policy.warm_up()
            example = {k: policy.example[k][0] for k in policy.schema.input_shapes()}
            call = functools.partial(policy.predict, [example] * size)
            arms[f"{program}_batch{size}"] = (size, call)
    return arms


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
