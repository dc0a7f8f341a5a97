"""Configs against each other and against PyTorch: training steps and predictions.

Every config, and every peer of it in PyTorch, is an arm in a process of its own, with
as many threads as the others. They take turns; `ratio` is the time of an arm over that
of the first one in the same turn. A device that only one process can hold, such as a
TPU, takes one config and no peers.
"""

import ast
import importlib.util
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_jax.benchmark.peers import peer_of
from vla_jax.benchmark.policy_arms import FRAMEWORKS
from vla_jax.benchmark.profile import SUMMARY
from vla_jax.benchmark.report import Row
from vla_jax.benchmark.turns import alternate
from vla_jax.names import did_you_mean
from vla_jax.serving.timing import percentiles_ms
from vla_jax.train.config import resolve

PEERS = FRAMEWORKS[1:]

_ARMS = "vla_jax.benchmark.policy_arms"


def split_names(text: str) -> list[str]:
    """Splits "a.py,b.py:word,word,c.py": a variant may have commas of its own."""
    return re.split(r",(?=[^,:]*\.py(?:[:,]|$))", text) if text else []


def load_config(name: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config of `file.py` or `file.py:variant`.

    Args:
        name: of the file.
        overrides: "--config.path.to.leaf=value", for leaves and for sections that
            take "name=value" pairs.

    Raises:
        ValueError: no such file, or an override that leads nowhere.
    """
    path, _, variant = name.partition(":")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"There is no config file {file}.")
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*([variant] if variant else []))
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    for override in overrides:
        _set(config, override)
    return config


def measure_configs(
    part: str,
    configs: Mapping[str, Mapping[str, Any]],
    *,
    peers: Sequence[str] = (),
    count: int,
    turns: int,
    threads: int = 0,
    profile: str = "",
) -> list[Row]:
    """Times training steps or predictions of configs in turns.

    Args:
        part: "step" or "inference".
        configs: how rows call it -> a config.
        peers: some of `PEERS`, for every config that PyTorch has a peer of.
        count: steps or predictions of a turn.
        turns: of each arm.
        threads: cores that each process may use; 0 for all.
        profile: folder for a trace of every config's first turn, which is not timed.

    Raises:
        ValueError: no runs, or a config that does not fit together.
    """
    if count < 1 or turns < 1:
        raise ValueError(
            f"num_batches is {count} and repeats {turns}; expected at least 1."
        )
    jobs = {}
    for label, config in configs.items():
        config = resolve(config)
        frameworks = ("jax", *peers) if peer_of(config) else ("jax",)
        if len(frameworks) <= len(peers):
            print(f"{label} has no peer in PyTorch; it is measured alone.")
        for framework in frameworks:
            name = label if framework == "jax" else f"{label}/{framework}"
            trace = profile and framework == "jax"
            jobs[name] = {
                "framework": framework,
                "part": part,
                "config": config,
                "count": count,
                "threads": threads,
                "profile": str(Path(profile, label.replace(":", "_"))) if trace else "",
            }
    results = alternate(jobs, turns, _ARMS)
    for name, job in jobs.items():
        if job["profile"]:
            print(f"{name}: {Path(job['profile'], SUMMARY).read_text()}")
    describe = {"step": _step_rows, "inference": _inference_rows}[part]
    first, rows = results[next(iter(jobs))], []
    for name, found in results.items():
        rows += describe(f"{part}/{name}", found)
        if found is not first:
            pairs = zip(found, first, strict=True)
            ratios = [_median(a) / _median(b) for a, b in pairs]
            rows.append(Row.over(f"{part}/{name}/ratio", ratios, "1"))
    return [*rows, Row(f"{part}/per_turn", count, "runs")]


def label_configs(names: Sequence[str]) -> dict[str, str]:
    """How rows call configs -> their names: "act:small" for configs/act.py:small.

    Raises:
        ValueError: two that would be called alike.
    """
    labels = {}
    for name in names:
        path, colon, variant = name.partition(":")
        label = Path(path).stem + colon + variant
        if label in labels:
            raise ValueError(f"{labels[label]} and {name} are both called {label!r}.")
        labels[label] = name
    return labels


def _step_rows(name: str, results: Sequence[Mapping[str, Any]]) -> list[Row]:
    seconds, facts = [_median(result) for result in results], results[-1]["facts"]
    rows = [
        Row.over(f"{name}/s", seconds, "s"),
        Row.over(
            f"{name}/images_per_s", [facts["images"] / s for s in seconds], "images/s"
        ),
    ]
    if "mfu_s" in facts:
        rows.append(Row.over(f"{name}/mfu", [facts["mfu_s"] / s for s in seconds], "1"))
    if "gflop" in facts:
        rates = [facts["gflop"] / s for s in seconds]
        rows.append(Row.over(f"{name}/gflop_per_s", rates, "GFLOP/s"))
    return rows + _fact_rows(name, results)


def _inference_rows(name: str, results: Sequence[Mapping[str, Any]]) -> list[Row]:
    medians = [1e3 * _median(result) for result in results]
    rows = [Row.over(f"{name}/p50_ms", medians, "ms")]
    every = [second for result in results for second in result["seconds"]]
    for key, value in percentiles_ms(every).items():
        if key != "p50_ms":
            rows.append(Row(f"{name}/{key}", value, "ms"))
    return rows + _fact_rows(name, results)


def _fact_rows(name: str, results: Sequence[Mapping[str, Any]]) -> list[Row]:
    facts = results[-1]["facts"]
    units = {
        "compile_s": "s",
        "gflop": "GFLOP",
        "program_mb": "MB",
        "parameters": "parameters",
    }
    rows = [
        Row(f"{name}/{key}", facts[key], unit)
        for key, unit in units.items()
        if key in facts
    ]
    return [*rows, Row(f"{name}/peak_mb", results[-1]["peak_mb"], "MB")]


def _median(result: Mapping[str, Any]) -> float:
    return statistics.median(result["seconds"])


def _set(config: dict[str, Any], override: str) -> None:
    path, equals, text = override.removeprefix("--config.").partition("=")
    *sections, leaf = path.split(".")
    place: Any = config
    for section in sections:
        if not isinstance(place, dict) or section not in place:
            known = place if isinstance(place, dict) else ()
            raise ValueError(
                f"{override} leads nowhere; {did_you_mean(section, known)}"
            )
        place = place[section]
    if not equals:
        raise ValueError(f"{override} gives no value.")
    if sections[:1] == ["data"] and leaf not in place:
        raise ValueError(f"{override} leads nowhere; {did_you_mean(leaf, place)}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    place[leaf] = value
