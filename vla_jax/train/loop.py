"""The training loop: build, restore or start, run the phases, save, report.

It knows `model.loss` and nothing else of the model, so it trains whatever has one.
"""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from vla_jax.compile_cache import use_compile_cache
from vla_jax.data.seen import to_line, to_row
from vla_jax.models.augment import make_augment
from vla_jax.models.build import build_model
from vla_jax.train.checkpoint import Checkpointer
from vla_jax.train.config import Phase, make_phases, resolve
from vla_jax.train.feed import Feed, make_feed, require_validation
from vla_jax.train.interrupt import Interrupt
from vla_jax.train.metrics import MetricsWriter, Recorder
from vla_jax.train.optimizer import Optimizer, make_optimizer
from vla_jax.train.pretrained import load_pretrained
from vla_jax.train.resume import find_start
from vla_jax.train.sharding import describe, make_mesh, state_sharding
from vla_jax.train.step import (
    Augment,
    TrainState,
    eval_step,
    init_state,
    init_variables,
    start_phase,
    train_step,
)
from vla_jax.types import Batch

OnBatch = Callable[[int, Batch], None]

# On CPU, LLVM spends most of a minute on the random numbers of an initialization that
# runs once; with less optimization it takes a fifth.
_INIT_OPTIONS = {"cpu": {"xla_backend_optimization_level": 1}}


def train(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    on_batch: OnBatch | None = None,
    resume_step: int | None = None,
) -> int:
    """Trains as `config` says, going on from the last checkpoint in `workdir`.

    SIGTERM and SIGINT end the run after the step at hand, with a checkpoint.

    Args:
        config: sections seed, data, model, optimizer, train and evaluation.
        workdir: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
        on_batch: called with the number of updates so far and the batch of the next.
        resume_step: saved step to go on from, and later ones are deleted; the latest
            when left out.

    Returns:
        The number of updates made in all; less than the config asks for when a signal
        ended the run.

    Raises:
        ValueError: a config, data set or checkpoint that cannot be used.
        FloatingPointError: the loss or its gradient is not finite.
        KeyboardInterrupt: a signal came before the first step, or a second time.
    """
    config = resolve(config)
    if config["train"]["compile_cache"]:
        use_compile_cache(config["train"]["compile_cache"])
    mesh = make_mesh(config["train"]["mesh"])
    with Interrupt() as interrupt:
        feed = make_feed(config, mesh)
        return fit(
            config,
            workdir,
            model=build_model(config["model"], feed.metadata),
            augment=make_augment(config["train"]["augment"]),
            feed=feed,
            mesh=mesh,
            interrupt=interrupt,
            on_batch=on_batch,
            resume_step=resume_step,
        )


class _Run(NamedTuple):
    """What stays the same from phase to phase."""

    config: Mapping[str, Any]
    model: nn.Module
    augment: Augment
    feed: Feed
    mesh: Mesh
    root: jax.Array  # the key from which every step folds its own
    checkpoints: Checkpointer
    recorder: Recorder
    interrupt: Interrupt
    on_batch: OnBatch | None


def fit(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    model: nn.Module,
    augment: Augment,
    feed: Feed,
    mesh: Mesh,
    interrupt: Interrupt,
    on_batch: OnBatch | None = None,
    resume_step: int | None = None,
) -> int:
    """Trains one model on one feed; `train` says the rest.

    Args:
        config: as `resolve` returns it.
    """
    settings, workdir = config["train"], Path(workdir)
    phases = make_phases(settings)
    with contextlib.ExitStack() as stack:
        checkpoints = Checkpointer(
            workdir / "checkpoints",
            keep=settings["keep"],
            keep_steps=[phase.stop for phase in phases],
        )
        stack.enter_context(checkpoints)
        start = find_start(checkpoints, config, feed, resume_step)
        step = start["step"]
        if step >= phases[-1].stop:
            tqdm.write(f"{workdir} is finished at step {step}; nothing to do")
            return step
        if settings["eval_every"]:
            require_validation(feed)
        batches = feed.train(start["position"])
        stack.callback(batches.close)
        first = next(batches)
        stream = itertools.chain([first], batches)
        writer = MetricsWriter(
            workdir,
            step=step,
            config=config,
            tensorboard=settings["tensorboard"],
            wandb=settings["wandb"],
        )
        stack.callback(writer.close)
        recorder = Recorder(
            writer,
            step=step,
            num_steps=phases[-1].stop,
            log_every=settings["log_every"],
            dataset_names=feed.names,
            last_good=checkpoints.latest,
        )
        stack.callback(recorder.close)
        run = _Run(
            config=config,
            model=model,
            augment=augment,
            feed=feed,
            mesh=mesh,
            root=jax.random.key(config["seed"]),
            checkpoints=checkpoints,
            recorder=recorder,
            interrupt=interrupt,
            on_batch=on_batch,
        )
        interrupt.finish_step()
        state = None
        for number in range(start["phase"], len(phases)):
            phase = phases[number]
            state, sharding, optimizer = _enter_phase(run, phase, state, step, first)
            state, step, stopped = _run_phase(
                run, number, phase, optimizer, sharding, state, step, stream
            )
            if stopped:
                break
    if step < phases[-1].stop:
        tqdm.write(f"interrupted at step {step}; run the same command to continue")
    else:
        tqdm.write(f"finished at step {step}; checkpoints: {checkpoints.folder}")
    return step


def _enter_phase(
    run: _Run, phase: Phase, state: TrainState | None, step: int, batch: Batch
) -> tuple[TrainState, TrainState, Optimizer]:
    """Makes the optimizer of a phase and the state in which it goes on.

    Args:
        state: from the phase before; None in the first phase of this process.
        step: updates so far.
        batch: any batch; a new model is initialized with it.

    Returns:
        The state, its shardings and the optimizer.
    """
    ema = run.config["train"]["ema_decay"] > 0
    draw = functools.partial(init_variables, run.model, dict(phase.loss_weights))
    optimizer = make_optimizer(
        jax.eval_shape(draw, batch, run.root),
        phase.steps,
        phase.freeze,
        **{**run.config["optimizer"], **phase.optimizer},
    )

    def create(batch, rng):
        return init_state(optimizer, draw(batch, rng), ema=ema)

    shapes = jax.eval_shape(create, batch, run.root)
    sharding = state_sharding(run.mesh, shapes, run.config["train"]["sharding"])
    if state is not None:
        params = state.ema_params if phase.from_average else state.params
        # Dropped first, so that the old moments are freed before the new are made.
        state = state.replace(params=params, opt_state=None, ema_params=None)
        enter = functools.partial(start_phase, optimizer, ema=ema)
        state = jax.jit(enter, out_shardings=sharding)(state)
    elif step:
        placed = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=place
            ),
            shapes,
            sharding,
        )
        state = run.checkpoints.restore(step, placed)
        run.checkpoints.discard_after(step)
    else:
        state = jax.jit(
            create,
            out_shardings=sharding,
            compiler_options=_INIT_OPTIONS.get(jax.default_backend()),
        )(batch, run.root)
        state = load_pretrained(run.model, state, sharding, run.config["train"]["load"])
    size = describe(run.mesh, shapes, sharding, optimizer.frozen)
    tqdm.write(f"phase {phase.name}, steps {phase.start} to {phase.stop}: {size}")
    return state, sharding, optimizer


def _run_phase(
    run: _Run,
    number: int,
    phase: Phase,
    optimizer: Optimizer,
    sharding: TrainState,
    state: TrainState,
    step: int,
    batches: Iterator[Batch],
) -> tuple[TrainState, int, bool]:
    """Steps until the phase ends or a signal comes.

    Returns:
        The state, its step, and whether a signal came.
    """
    settings, recorder = run.config["train"], run.recorder
    weights, decay = dict(phase.loss_weights), settings["ema_decay"]
    update = jax.jit(
        functools.partial(
            train_step,
            run.model,
            optimizer,
            run.augment,
            weights,
            decay,
            accumulate=settings["accumulate"],
        ),
        donate_argnums=0,
        out_shardings=(sharding, NamedSharding(run.mesh, PartitionSpec())),
    )
    evaluate = jax.jit(functools.partial(eval_step, run.model, weights))
    recorder.start_phase(phase.name)
    stop, compiled = False, False
    while step < phase.stop and not stop:
        asked = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - asked
        if run.on_batch is not None:
            run.on_batch(step, batch)
        state, metrics = update(state, batch, run.root)
        step += 1
        if not compiled:
            recorder.restart_clock()
            compiled = True
        recorder.push(step, metrics, batch, waited=waited)
        stop = run.interrupt.requested(step)
        last, every = step == phase.stop, settings["eval_every"]
        check = every > 0 and (last or step % every == 0)
        save = last or stop or step % settings["save_every"] == 0
        if check or save:
            # Only a state whose every step is known to be finite is ever saved.
            recorder.drain()
        if check:
            recorder.write(step, _evaluate(run, evaluate, state))
        if save:
            _report_seen(run, step)
            position = dict(step=step, phase=number, position=step)
            run.checkpoints.save(step, state, position)
        if check or save:
            recorder.restart_clock()
    return state, step, stop


def _report_seen(run: _Run, step: int) -> None:
    """What `step` batches have shown of each data set, to the log and the terminal."""
    entries = run.feed.seen(step)
    if entries:
        run.recorder.write(step, to_row(entries))
        if not jax.process_index():
            tqdm.write(f"step {step}, {to_line(entries)}")


def _evaluate(run: _Run, evaluate: Callable, state: TrainState) -> dict[str, float]:
    """Means over the held-out batches, with the averaged parameters where kept."""
    params = state.params if state.ema_params is None else state.ema_params
    rows = []
    with contextlib.closing(run.feed.validation()) as batches:
        for index, batch in enumerate(batches):
            rows.append(evaluate(params, state.collections, batch, run.root, index))
            if index >= 2:  # Batches must not pile up on the device.
                jax.block_until_ready(rows[index - 2])
    rows = jax.device_get(rows)
    return {
        f"validation/{name}": float(np.mean([row[name] for row in rows]))
        for name in rows[0]
    }
