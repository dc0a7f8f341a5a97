"""Arms that take turns: noise of the machine hits all of them, so ratios are taken
within a turn, and their median and range over the turns are reported."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

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


class Arm:
    """A process of `vla_jax.benchmark.arms`; a context manager that ends it."""

    def __init__(self, name: str, settings: Mapping[str, Any]):
        self.name = name
        self._stack = contextlib.ExitStack()
        self._errors = self._stack.enter_context(tempfile.TemporaryFile("w+"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "vla_jax.benchmark.arms"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._ask(json.dumps({"arm": name, **settings}))

    def turn(self) -> dict[str, float]:
        """One turn; see `vla_jax.benchmark.arms.open_arm`."""
        return self._ask("turn")

    def __enter__(self) -> "Arm":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stack.close()

    def _ask(self, line: str) -> dict:
        with contextlib.suppress(BrokenPipeError):  # the reply tells what happened
            print(line, file=self._process.stdin, flush=True)
        reply = self._process.stdout.readline()
        if not reply:
            self._errors.seek(0)
            raise RuntimeError(
                f"The arm '{self.name}' of the benchmark died:\n"
                f"{self._errors.read()[-2000:]}"
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
        arms = [stack.enter_context(Arm(name, settings)) for name in names]
        for turn in tqdm(range(turns + 1), desc=f"turns of {', '.join(names)}"):
            first = turn % len(arms)
            for arm in (*arms[first:], *arms[:first]):
                result = arm.turn()
                if turn:
                    results[arm.name].append(result)
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
