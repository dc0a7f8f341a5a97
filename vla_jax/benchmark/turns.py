"""Arms that take turns: noise of the machine hits all of them, so ratios are taken
within a turn, and their median and range over the turns are reported."""

import contextlib
import functools
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from vla_jax.benchmark.report import Row
from vla_jax.names import did_you_mean

RIVALS = ("tfdata", "dlimp")
_INSTALL = {
    "tfdata": ("tensorflow", "pip install 'vla_jax[tf]'"),
    "dlimp": ("dlimp", "pip install --no-deps git+https://github.com/kvablack/dlimp"),
}


def choose_rivals(names: Sequence[str]) -> list[str]:
    """Those of `RIVALS` that were named and are installed; says which are not.

    Raises:
        ValueError: a name that is none of them.
    """
    chosen = []
    for name in names:
        if name not in RIVALS:
            raise ValueError(
                f"Unknown pipeline {name!r} in --compare; {did_you_mean(name, RIVALS)}"
            )
        package, command = _INSTALL[name]
        if importlib.util.find_spec(package) is None:
            print(
                f"Leaving {name} out of the comparison: {package} is not installed "
                f"({command})."
            )
            continue
        chosen.append(name)
    return chosen


@contextlib.contextmanager
def open_arm(
    name: str, settings: Mapping[str, Any]
) -> Iterator[Callable[[], dict[str, float]]]:
    """Starts a process of `vla_jax.benchmark.arms` and ends it.

    Yields:
        a function that takes one turn, see `vla_jax.benchmark.arms.open_arm`.
    """
    command = [sys.executable, "-m", "vla_jax.benchmark.arms"]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, text=True
        ) as process,
    ):
        try:
            ask = functools.partial(_ask, name, process, errors)
            ask(json.dumps({"arm": name, **settings}))
            yield functools.partial(ask, "turn")
        finally:
            process.kill()  # it has nothing to finish


def _ask(name: str, process: subprocess.Popen, errors: TextIO, line: str) -> dict:
    with contextlib.suppress(BrokenPipeError):  # the reply tells what happened
        print(line, file=process.stdin, flush=True)
    reply = process.stdout.readline()
    if not reply:
        process.wait()
        errors.seek(0)
        raise RuntimeError(
            f"The arm '{name}' of the benchmark died:\n{errors.read()[-2000:]}"
        )
    result = json.loads(reply)
    if "error" in result:
        raise ValueError(result["error"])
    return result


def take_turns(
    names: Sequence[str],
    config: Mapping[str, Any],
    *,
    num_batches: int,
    turns: int,
    shuffle: int,
) -> dict[str, list[dict[str, float]]]:
    """Lets arms load the same data set in turns, each in a process of its own.

    Every round begins with another arm. The first round, which fills the page cache, is
    left out.

    Args:
        names: some of `vla_jax.benchmark.arms.ARMS`.
        config: of `open_source`; its indexes must exist.
        num_batches: batches of a turn.
        turns: of each arm.
        shuffle: steps that the pipelines of TensorFlow shuffle together.

    Returns:
        per arm the results of its turns, in order.
    """
    settings = {"config": config, "num_batches": num_batches, "shuffle": shuffle}
    results: dict[str, list] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        arms = [(name, stack.enter_context(open_arm(name, settings))) for name in names]
        for turn in tqdm(range(turns + 1), desc=f"turns of {', '.join(names)}"):
            first = turn % len(arms)
            for name, take_turn in (*arms[first:], *arms[:first]):
                result = take_turn()
                if turn:
                    results[name].append(result)
    return results


def ratio(
    name: str, over: Sequence[Mapping], under: Sequence[Mapping], key: str
) -> Row:
    """`over[key] / under[key]` of every turn."""
    values = [a[key] / b[key] for a, b in zip(over, under, strict=True)]
    return Row.over(name, values, "1")


def rate(name: str, results: Sequence[Mapping]) -> Row:
    """Images per second of every turn."""
    values = [result["images"] / result["seconds"] for result in results]
    return Row.over(name, values, "images/s")


def memory(name: str, results: Sequence[Mapping]) -> Row:
    """Resident memory at the end of every turn."""
    return Row.over(name, [result["rss_mb"] for result in results], "MB")
