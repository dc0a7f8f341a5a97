"""A config as something to time: one training step, or one prediction.

Weights are random and data made up, so nothing has to lie on disk. The step is the one
that training compiles, with its optimizer, augmentation and average; the prediction is
the one that is served, from pixels and words on the host to actions on the host.
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vla_jax.benchmark import synthetic
from vla_jax.benchmark.profile import operation_names
from vla_jax.compile_cache import use_compile_cache
from vla_jax.data.text import Tokenizer
from vla_jax.models.augment import make_augment
from vla_jax.models.build import build_model
from vla_jax.serving.live import live_policy, make_forward
from vla_jax.train.config import make_phases, resolve
from vla_jax.train.flops import peak_flops
from vla_jax.train.phase import enter_phase, step_flops
from vla_jax.train.sharding import batch_sharding, make_mesh
from vla_jax.train.step import TrainState, init_variables, train_step
from vla_jax.types import Batch, batch_from_dict

PARTS = ("step", "inference")

_INSTRUCTION = "open the drawer"

Update = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Any]]


class Program(NamedTuple):
    """Something to time.

    Attributes:
        run: does it so many times and returns when the last one is done; what one
            takes when another follows at once is what training waits for.
        facts: numbers that no measurement changes: `parameters`, `images` of one run,
            and as far as they are known `compile_s`, `gflop`, `program_mb`, `mfu_s`,
            seconds of one run at the peak of the devices.
        names: of the compiled program, instruction to the operation that it came from.
    """

    run: Callable[[int], None]
    facts: dict[str, float]
    names: Callable[[], dict[str, str]] = dict


def open_program(part: str, config: Mapping[str, Any]) -> Program:
    """Builds and compiles one of `PARTS`.

    Args:
        part: "step" or "inference".
        config: an experiment, as for `vla_jax.train.loop.train`.

    Raises:
        ValueError: a config that does not fit together.
    """
    config = resolve(config)
    # Weights from files change nothing about time, and may not be there.
    config["train"] |= {"load": {}, "initial_checkpoint": ""}
    if config["train"]["compile_cache"]:
        use_compile_cache(config["train"]["compile_cache"])
    metadata = synthetic.make_metadata(config["data"])
    return {"step": _open_step, "inference": _open_inference}[part](config, metadata)


def compile_update(
    config: Mapping[str, Any], metadata: Mapping[str, Any], batch: Batch
) -> tuple[Update, TrainState, int, float]:
    """The step of the first phase of training, and the state before it.

    Args:
        config: as `resolve` returns it.
        metadata: of the data.
        batch: one batch on the devices.

    Returns:
        The compiled step, the state, the operations of the step's loss and gradient,
        and the seconds that it took to compile.
    """
    settings, root = config["train"], jax.random.key(config["seed"])
    mesh, phase = make_mesh(settings["mesh"]), make_phases(settings)[0]
    model = build_model(
        config["model"], metadata, attention_kernel=settings["attention_kernel"]
    )
    state, sharding, optimizer = enter_phase(
        config,
        model,
        mesh,
        phase,
        state=None,
        step=0,
        batch=batch,
        root=root,
        checkpoints=None,
    )
    update = functools.partial(
        train_step,
        model,
        optimizer,
        make_augment(settings["augment"]),
        dict(phase.loss_weights),
        settings["ema_decay"],
        accumulate=settings["accumulate"],
    )
    jitted = jax.jit(update, donate_argnums=0, out_shardings=(sharding, None))
    start = time.perf_counter()
    compiled = jitted.lower(state, batch, root).compile()
    compile_s = time.perf_counter() - start
    return compiled, state, step_flops(model, phase, optimizer, state, batch), compile_s


def _open_step(config: dict[str, Any], metadata: dict[str, Any]) -> Program:
    settings = config["train"]
    mesh = make_mesh(settings["mesh"])
    size = config["data"]["batch_size"]
    sharding = batch_sharding(mesh, size, settings["accumulate"])
    host = synthetic.make_batch(config["data"], metadata)
    batch = jax.device_put(batch_from_dict(host), sharding)
    update, state, flops, compile_s = compile_update(config, metadata, batch)
    root = jax.random.key(config["seed"])
    held = [state]

    def run(count: int) -> None:
        for _ in range(count):
            held[0], metrics = update(held[0], batch, root)
        jax.block_until_ready((held, metrics))

    images = [*batch.observation.image.values()]
    for label in host["labels"].values():
        images += label.get("image", {}).values()
    facts = {
        "parameters": _count(state.params),
        "images": sum(image.shape[0] * image.shape[1] for image in images),
        "compile_s": compile_s,
        "gflop": flops / 1e9,
        "program_mb": _program_mb(update),
    }
    peak = peak_flops(mesh.devices.flat[0].device_kind, settings["peak_flops"])
    if peak is not None:
        facts["mfu_s"] = flops / (peak * mesh.size)
    return Program(run, facts, lambda: operation_names(update.as_text()))


def _open_inference(config: dict[str, Any], metadata: dict[str, Any]) -> Program:
    kernel = config["train"]["attention_kernel"]
    model = build_model(config["model"], metadata, attention_kernel=kernel)
    weights = dict(make_phases(config["train"])[0].loss_weights)
    batch = synthetic.make_batch(config["data"], metadata, batch_size=1)
    shapes = jax.eval_shape(
        functools.partial(init_variables, model, weights),
        batch_from_dict(batch),
        jax.random.key(0),
    )
    variables = random_variables(shapes)
    policy = live_policy(
        model,
        variables,
        metadata,
        Tokenizer.from_file(config["data"]["text"]["model"]),
        dataset=metadata["datasets"][0]["name"],
        batch_sizes=(1,),
    )
    first = {
        kind: {camera: value[0, -1] for camera, value in part.items()}
        for kind, part in batch["observation"].items()
        if kind in ("image", "depth")
    }
    first["camera"] = {
        camera: {kind: value[0, -1] for kind, value in matrices.items()}
        for camera, matrices in batch["observation"].get("camera", {}).items()
    }
    first["proprio"] = np.zeros(policy.schema.proprio_dim, np.float32)

    def run(count: int) -> None:
        for _ in range(count):
            frame = policy.schema.check(first)
            policy.predict([policy.row([frame] * policy.schema.window, _INSTRUCTION)])

    start = time.perf_counter()
    run(1)
    facts = {
        "parameters": _count(variables["params"]),
        "images": len(first["image"]) * policy.schema.window,
        "compile_s": time.perf_counter() - start,
    }

    def names() -> dict[str, str]:
        inputs = policy.row([policy.schema.check(first)], _INSTRUCTION)
        inputs = {key: np.asarray(value)[None] for key, value in inputs.items()}
        forward = jax.jit(make_forward(model, metadata, policy.schema.dataset))
        return operation_names(forward.lower(variables, inputs).compile().as_text())

    return Program(run, facts, names)


def random_variables(shapes: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Variables that keep activations of size 1, without compiling an initialization.

    Args:
        shapes: nested dicts of shapes, as `jax.eval_shape` gives them.
        seed: of the values.
    """
    rng = np.random.default_rng(seed)

    def draw(keys, leaf):
        if len(leaf.shape) > 1:
            fan_in = np.prod(leaf.shape[:-1])
            values = rng.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)
            return values.astype(leaf.dtype)
        is_factor = keys[-1].key in ("scale", "var")
        return np.full(leaf.shape, is_factor, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, dict(shapes))


def _program_mb(compiled: Any) -> float:
    """Memory of one device while the program runs: inputs, outputs and scratch."""
    size = compiled.memory_analysis()
    both = size.argument_size_in_bytes + size.output_size_in_bytes
    return (both + size.temp_size_in_bytes - size.alias_size_in_bytes) / 1e6


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
