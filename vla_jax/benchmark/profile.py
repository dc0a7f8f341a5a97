"""What the time of a compiled program goes into, read from a trace of `jax.profiler`.

A trace has one event for each instruction that ran. Events lie within one another
(loops, calls), so an instruction is given the time that is its own. The program itself
tells which operation of which module an instruction came from.
"""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

SUMMARY = "summary.txt"

_MODULES, _OPERATIONS = 12, 12  # lines of a summary
_DEPTH = 2  # names of a path that tell a module


def trace(folder: str | Path, run: Callable[[], None], names: Mapping[str, str]):
    """Traces `run()` and writes what took the time to `summary.txt` in `folder`.

    Args:
        folder: gets the trace, `plugins/profile/<time>/*.trace.json.gz`.
        run: what is traced; compiled before, and finished when it returns.
        names: instruction of the program to the operation that it came from.
    """
    folder = Path(folder)
    with jax.profiler.trace(str(folder)):
        run()
    file = max(folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    summary = summarize(own_times(events), names)
    opened = f"Open {file} in https://ui.perfetto.dev."
    (folder / SUMMARY).write_text(f"{summary}\n{opened}\n")


def own_times(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Microseconds of each instruction of compiled programs, without what lies in it.

    Args:
        events: `traceEvents` of a trace; those of instructions have `hlo_op`.
    """
    threads: dict[Any, list] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            start = event["ts"]
            span = (start, -event.get("dur", 0.0), event["args"]["hlo_op"])
            threads[event["pid"], event["tid"]].append(span)
    times: dict[str, float] = defaultdict(float)
    for spans in threads.values():
        around: list[tuple[float, str]] = []  # end and name of what is still open
        for start, minus, name in sorted(spans):
            while around and around[-1][0] <= start:
                around.pop()
            if around:
                times[around[-1][1]] += minus
            times[name] -= minus
            around.append((start - minus, name))
    return dict(times)


def summarize(times: Mapping[str, float], names: Mapping[str, str]) -> str:
    """Two tables, of modules and of instructions, by their share of the time."""
    total = sum(times.values())
    if not total:
        return "The trace has no instruction of a compiled program."
    modules: dict[str, float] = defaultdict(float)
    for instruction, time in times.items():
        modules[module_of(names.get(instruction, ""))] += time
    operations = {
        f"{name}  {_path(names.get(name, ''))}": time for name, time in times.items()
    }
    return "\n".join(
        [
            f"{total / 1e3:,.1f} ms in instructions, of it by module:",
            *_shares(modules, total, _MODULES),
            "and by instruction:",
            *_shares(operations, total, _OPERATIONS),
        ]
    )


def module_of(operation: str) -> str:
    """The module of an operation and the direction, such as "trunk/encoder backward".

    Operations outside of the model, such as the optimizer's, are called by their first
    names.
    """
    path = _path(operation).split("/")
    backward = " backward" if "transpose(" in operation else ""
    return ("/".join(path[:-1][:_DEPTH]) or path[-1] or "(no name)") + backward


def _path(operation: str) -> str:
    """Names of modules and of the operation, without those of JAX's transformations."""
    parts = re.sub(r"\b(jit|jvp|transpose|vmap|remat)\(([^()]*)\)", r"\2", operation)
    while parts != operation:
        operation = parts
        parts = re.sub(r"\b(jit|jvp|transpose|vmap)\(([^()]*)\)", r"\2", operation)
    dropped = (
        "train_step",
        "main",
        "one",
        "Policy",
        "loss",
        "Policy.loss",
        "",
        "while",
    )
    kept = [part for part in parts.split("/") if part not in dropped]
    return "/".join(kept)


def _shares(times: Mapping[str, float], total: float, count: int) -> Sequence[str]:
    ranked = sorted(times.items(), key=lambda item: -item[1])[:count]
    return [
        f"  {time / total:6.1%}  {time / 1e3:10,.2f} ms  {name}"
        for name, time in ranked
    ]
