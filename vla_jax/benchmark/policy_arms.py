"""A config in a process of its own: `python -m vla_jax.benchmark.policy_arms`.

The first line that comes is JSON, `{"arm", "framework", "part", "config", "count",
"threads", "profile"}`; the rest as in `vla_jax.benchmark.arms`.
"""

import os
import resource
import sys
import time
from typing import Any

from vla_jax.benchmark.arms import Turn, answer

FRAMEWORKS = ("jax", "torch", "torch_compile")


def main() -> None:
    """Answers what comes from stdin until it ends."""
    answer(open_arm)


def open_arm(job: dict[str, Any]) -> Turn:
    """Prepares a config.

    Args:
        job: `framework`, one of `FRAMEWORKS`; `part`, "step" or "inference"; `config`;
            `count`, runs of a turn; `threads`, cores that it may use, 0 for all;
            `profile`, folder for a trace of the first turn, or empty.

    Returns:
        a function that takes one turn: `seconds`, of all steps together as a list of
        one, or of each prediction; `peak_mb`, resident memory of the process at its
        highest; and the `facts` of the program.

    Raises:
        ValueError: a config that does not fit together, or that PyTorch has no peer of.
    """
    if job["threads"]:
        # Both frameworks take as many threads as there are cores for the process.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: job["threads"]])
    if job["framework"] == "jax":
        from vla_jax.benchmark.programs import open_program

        program = open_program(job["part"], job["config"])
    else:
        from vla_jax.benchmark.torch_peer import open_peer

        is_compiled = job["framework"] == "torch_compile"
        program = open_peer(job["part"], job["config"], compiled=is_compiled)
    count, profile = job["count"], job["profile"]

    def turn() -> dict[str, Any]:
        nonlocal profile
        if profile:
            from vla_jax.benchmark.profile import trace

            folder, profile = profile, ""
            trace(folder, lambda: program.run(count), program.names())
        seconds = []
        for repeat in (count,) if job["part"] == "step" else (1,) * count:
            start = time.perf_counter()
            program.run(repeat)
            seconds.append((time.perf_counter() - start) / repeat)
        return {"seconds": seconds, "peak_mb": _peak_mb(), "facts": program.facts}

    return turn


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


if __name__ == "__main__":
    main()
