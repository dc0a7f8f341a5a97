"""How long a policy takes for a chunk, from checked frames to actions on the host."""

import time
from collections.abc import Sequence
from pathlib import Path

from vla_jax.benchmark.report import Row
from vla_jax.serving.policy import PROGRAMS, Policy
from vla_jax.serving.timing import percentiles_ms

_TURNS = 10  # the arms take turns, so that a disturbance hits all of them


def measure_inference(
    folder: str | Path, *, num_calls: int, batch_sizes: Sequence[int] = (1, 8)
) -> list[Row]:
    """Times calls of a bundle, as the exported program and as the live model.

    Args:
        folder: of the bundle.
        num_calls: calls of each arm.
        batch_sizes: rows of a call; each size is an arm.

    Raises:
        ValueError: a bundle that cannot be loaded, or no calls.
    """
    if num_calls < 1:
        raise ValueError(f"num_batches is {num_calls}; expected at least 1.")
    arms, rows = {}, []
    for program in PROGRAMS:
        for size in batch_sizes:
            policy = Policy.load(folder, program=program, batch_sizes=(size,))
            policy.warm_up()
            example = {k: policy.example[k][0] for k in policy.schema.input_shapes()}
            arms[program, size] = (policy, [example] * size, [])
    for turn in range(_TURNS):
        calls = num_calls // _TURNS + (turn < num_calls % _TURNS)
        for policy, inputs, seconds in arms.values():
            for _ in range(calls):
                start = time.perf_counter()
                policy.predict(inputs)
                seconds.append(time.perf_counter() - start)
    for (program, size), (_, _, seconds) in arms.items():
        name = f"inference/{program}_batch{size}"
        rows += [
            Row(f"{name}_{key}", value, "ms")
            for key, value in percentiles_ms(seconds).items()
        ]
        rows.append(
            Row(f"{name}_per_s", size * len(seconds) / sum(seconds), "chunks/s")
        )
    return [*rows, Row("inference/calls", num_calls, "calls")]
