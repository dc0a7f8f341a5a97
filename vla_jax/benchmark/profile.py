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

# Parts of a path that say how a module was called, and not which.
_WRAPPERS = ("", "train_step", "main", "Policy", "while", "body", "closed_call")

_MODULES, _OPERATIONS = 12, 12  # lines of a summary
_DEPTH = 2  # names of a path that tell a module
_HOPS = 3  # inputs of inputs that may name an instruction


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


def operation_names(text: str) -> dict[str, str]:
    """Instruction of a compiled program -> the operation that it came from.

    Some that the compiler made anew, such as gradients of convolutions, have lost it:
    they are called by the nearest of their inputs that has one, with a "~" behind.

    Args:
        text: the program, `compiled.as_text()`.
    """
    names, inputs = {}, {}
    for line in text.splitlines():
        instruction, equals, rest = line.strip().partition(" = ")
        if not equals:
            continue
        instruction = instruction.removeprefix("ROOT ").lstrip("%")
        found = re.search(r'op_name="([^"]*)"', rest)
        if found:
            names[instruction] = found[1]
        inputs[instruction] = re.findall(r"%([\w.-]+)", rest.partition(", calls=")[0])
    lost = {}
    for instruction in inputs.keys() - names.keys():
        near = inputs[instruction]
        for _ in range(_HOPS):
            named = next((name for name in near if "/" in names.get(name, "")), None)
            if named:
                lost[instruction] = names[named] + "~"
                break
            near = [name for one in near for name in inputs.get(one, ())]
    return names | lost


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
    before = ""
    while before != operation:
        before = operation
        operation = re.sub(r"\b(jit|jvp|transpose|vmap)\(([^()]*)\)", r"\2", operation)
    kept: list[str] = []
    for part in operation.split("/"):
        name = part.partition(".")[0]  # of "head.loss", a method
        if name not in _WRAPPERS and name not in kept[-1:]:
            kept.append(name)
    return "/".join(kept)


def _shares(times: Mapping[str, float], total: float, count: int) -> Sequence[str]:
    ranked = sorted(times.items(), key=lambda item: -item[1])[:count]
    return [
        f"  {time / total:6.1%}  {time / 1e3:10,.2f} ms  {name}"
        for name, time in ranked
    ]
