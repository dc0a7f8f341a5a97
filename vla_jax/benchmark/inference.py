"""How long a policy takes for a chunk, from checked frames to actions on the host."""

import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vla_jax.benchmark.report import Row
from vla_jax.data.standardize import resolve_spec
from vla_jax.models.build import build
from vla_jax.serving.policy import PROGRAMS, Policy
from vla_jax.serving.timing import percentiles_ms
from vla_jax.train.config import resolve
from vla_jax.types import Observation, Task

_TURNS = 10  # the arms take turns, so that a disturbance hits all of them

Call = Callable[[], Any]  # one prediction; returns when the actions are on the host
Arms = dict[str, tuple[int, Call]]  # what is run -> rows of a call, and the call


def measure_inference(policies: Mapping[str, Arms], *, num_calls: int) -> list[Row]:
    """Times calls of policies in turns.

    Several are compared with the first, arm by arm: `ratio` is the median over the
    turns of the time of a call, as a share of that of the first in the same turn.

    Args:
        policies: name, "" for a single one, to what `bundle_arms` or `config_arms`
            gives.
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


def config_arms(config: Mapping[str, Any], batch_sizes: Sequence[int] = (1, 8)) -> Arms:
    """The policy of a config with random weights, for each batch size.

    It needs no data: sizes come from the config and from the entry of its first data
    set, and `proprio` is as long as an action.

    Args:
        config: sections as for training.
        batch_sizes: rows of a call; each size is an arm.

    Raises:
        ValueError: a config that does not fit together.
    """
    config = resolve(config)
    dims = len(resolve_spec(config["data"]["datasets"][0]["spec"]).action)
    model = build(config["model"])
    variables, arms = None, {}
    for size in batch_sizes:
        inputs = (*_inputs(config["data"], size, dims), jax.random.key(0))
        if variables is None:
            draw = functools.partial(model.init, method="sample")
            variables = jax.jit(draw)(jax.random.key(0), *inputs)
        run = jax.jit(functools.partial(model.apply, method="sample"))
        call = functools.partial(_call, run, variables, inputs)
        call()  # compiles
        arms[f"live_batch{size}"] = (size, call)
    return arms


def load_config(name: str) -> Mapping[str, Any]:
    """The config of `file.py` or `file.py:variant`.

    Raises:
        ValueError: no such file.
    """
    path, _, variant = name.partition(":")
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"There is no config file {file}.")
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*([variant] if variant else []))


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _call(run: Callable, variables: Any, inputs: tuple) -> np.ndarray:
    return jax.device_get(run(variables, *inputs))


def _inputs(
    data: Mapping[str, Any], size: int, proprio_dim: int
) -> tuple[Observation, Task]:
    """Random pictures that all are real, and zeros for the rest, on the host."""
    rng = np.random.default_rng(0)
    lead, words = (size, data["window"]), (size, data["text"]["length"])
    pixels, cameras = (*lead, *data["image_size"]), data["cameras"]
    matrices = {"intrinsics": 3, "extrinsics": 4}
    return Observation(
        image={c: rng.integers(0, 256, (*pixels, 3), np.uint8) for c in cameras},
        image_mask={c: np.ones(lead, bool) for c in cameras},
        proprio=np.zeros((*lead, proprio_dim), np.float32),
        frame_mask=np.ones(lead, bool),
        depth={c: np.ones(pixels, np.float32) for c in data.get("depth", ())},
        camera={
            c: {
                key: np.broadcast_to(np.eye(n, dtype=np.float32), (*lead, n, n))
                for key, n in matrices.items()
            }
            for c in (cameras if data.get("camera_matrices") else ())
        },
    ), Task(tokens=np.zeros(words, np.int32), token_mask=np.ones(words, bool))
