"""Entering a phase: its optimizer, the state it goes on with, and where that lies."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh
from tqdm import tqdm

from vla_jax.models.lora import LoraModel, frozen_base
from vla_jax.train.checkpoint import Checkpointer
from vla_jax.train.config import Phase
from vla_jax.train.flops import as_written, count_flops, peak_flops
from vla_jax.train.initial import load_initial
from vla_jax.train.memory import describe
from vla_jax.train.optimizer import Optimizer, make_optimizer
from vla_jax.train.pretrained import load_pretrained
from vla_jax.train.ramp import weights_at
from vla_jax.train.sharding import state_sharding
from vla_jax.train.step import (
    TrainState,
    init_state,
    init_variables,
    loss_gradient,
    start_phase,
)
from vla_jax.types import Batch

# On CPU, LLVM spends most of a minute on the random numbers of an initialization that
# runs once; with less optimization it takes a fifth.
_INIT_OPTIONS = {"cpu": {"xla_backend_optimization_level": 1}}


def enter_phase(
    config: Mapping[str, Any],
    model: nn.Module | LoraModel,
    mesh: Mesh,
    phase: Phase,
    *,
    state: TrainState | None,
    step: int,
    batch: Batch,
    root: jax.Array,
    checkpoints: Checkpointer | None,
) -> tuple[TrainState, TrainState, Optimizer]:
    """Makes the optimizer of a phase and the state in which it goes on.

    Args:
        config: as `vla_jax.train.config.resolve` returns it.
        model: what is trained.
        mesh: the devices.
        phase: what is entered.
        state: from the phase before; None in the first phase of this process.
        step: updates so far.
        batch: any batch; a new model is initialized with it.
        root: the key of the run.
        checkpoints: from which a run that has made steps is restored; None for one that
            has made none.

    Returns:
        The state, its shardings and the optimizer.
    """
    settings = config["train"]
    kept = dict(ema=settings["ema_decay"] > 0, frozen_dtype=settings["frozen_dtype"])
    draw = functools.partial(init_variables, model, dict(phase.loss_weights))
    variables = jax.eval_shape(draw, batch, root)
    optimizer = make_optimizer(
        variables,
        phase.steps,
        [*phase.freeze, *frozen_base(model, variables)],
        **{**config["optimizer"], **phase.optimizer},
    )

    def create(batch, rng):
        return init_state(optimizer, draw(batch, rng), **kept)

    shapes = jax.eval_shape(create, batch, root)
    sharding = state_sharding(
        mesh, shapes, settings["sharding"], min_size=settings["fsdp_min_size"]
    )
    if state is not None:
        params = state.ema_params if phase.from_average else state.params
        # Dropped first, so that the old moments are freed before the new are made.
        state = state.replace(params=params, opt_state=None, ema_params=None)
        enter = functools.partial(start_phase, optimizer, **kept)
        state = jax.jit(enter, out_shardings=sharding)(state)
    elif step:
        placed = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=place
            ),
            shapes,
            sharding,
        )
        state = checkpoints.restore(step, placed)
        checkpoints.discard_after(step)
    else:
        state = jax.jit(
            create,
            out_shardings=sharding,
            compiler_options=_INIT_OPTIONS.get(jax.default_backend()),
        )(batch, root)
        if settings["initial_checkpoint"]:
            state, report = load_initial(state, sharding, settings)
            say(f"weights of {settings['initial_checkpoint']}:\n{report}")
        state = load_pretrained(model, state, sharding, settings["load"])
    size = describe(mesh, shapes, sharding, optimizer.frozen, batch)
    say(f"phase {phase.name}, steps {phase.start} to {phase.stop}: {size}")
    return state, sharding, optimizer


def step_at_peak_s(
    settings: Mapping[str, Any],
    model: nn.Module | LoraModel,
    mesh: Mesh,
    phase: Phase,
    optimizer: Optimizer,
    state: TrainState,
    batch: Batch,
) -> float | None:
    """Seconds that a step's operations would take at the peak of all devices.

    Args:
        settings: the `train` section.
        state: of the phase; `batch`: one batch. Only their shapes are read.

    Returns:
        None where nobody knows the peak of the devices.
    """
    kind = mesh.devices.flat[0].device_kind
    peak = peak_flops(kind, settings["peak_flops"])
    if peak is None:
        return None
    flops = step_flops(model, phase, optimizer, state, batch)
    say(
        f"{flops / 1e9:,.4g} GFLOP per step; MFU is of {peak / 1e12:,.4g} TFLOP/s for "
        f"each {kind}"
    )
    return flops / (peak * mesh.size)


def step_flops(
    model: nn.Module | LoraModel,
    phase: Phase,
    optimizer: Optimizer,
    state: TrainState,
    batch: Batch,
) -> int:
    """Operations of the loss and its gradient for one batch; only shapes are read."""
    rngs = {name: jax.random.key(0) for name in ("noise", "dropout")}
    gradient = functools.partial(
        loss_gradient, as_written(model), optimizer, weights_at(phase.loss_weights)
    )
    variables = {"params": state.params, **state.collections}
    return count_flops(gradient, variables, batch, rngs)


def say(text: str) -> None:
    """Prints beside the progress bar, once for all processes."""
    if jax.process_index() == 0:
        tqdm.write(text)
