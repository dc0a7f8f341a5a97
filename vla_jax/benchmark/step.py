"""What share of training time is spent outside the compiled step.

The steps run one by one, each waited for, with everything around them that training
does: batches come from the loader through the same threads, metrics go to the same
files. What passes between the end of one step and the start of the next is time that
the devices stand idle. Training itself does not wait, so there the share is smaller.
"""

import contextlib
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from vla_jax.benchmark.report import Row
from vla_jax.compile_cache import use_compile_cache
from vla_jax.models.augment import make_augment
from vla_jax.models.build import build_model
from vla_jax.train.config import make_phases, resolve
from vla_jax.train.feed import make_feed
from vla_jax.train.metrics import MetricsWriter, Recorder
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.sharding import make_mesh, state_sharding
from vla_jax.train.step import TrainState, init_state, init_variables, train_step
from vla_jax.types import Batch

_WARM_UP = 5  # steps that are not timed: compilation, and the first batches


def measure_step(config: Mapping[str, Any], *, num_steps: int) -> list[Row]:
    """Trains `num_steps` steps of the first phase of `config` and times them.

    Args:
        config: an experiment, as for `vla_jax.train.loop.train`.
        num_steps: steps to time.

    Raises:
        ValueError: a config or data set that cannot be used.
    """
    config = resolve(config)
    settings = config["train"]
    if settings["compile_cache"]:
        use_compile_cache(settings["compile_cache"])
    mesh = make_mesh(settings["mesh"])
    feed = make_feed(config, mesh)
    with contextlib.ExitStack() as stack:
        batches = feed.train(0)
        stack.callback(batches.close)
        writer = MetricsWriter(
            stack.enter_context(tempfile.TemporaryDirectory()),
            step=0,
            config=config,
            tensorboard=settings["tensorboard"],
            wandb=False,
        )
        stack.callback(writer.close)
        recorder = Recorder(
            writer,
            step=0,
            num_steps=_WARM_UP + num_steps,
            log_every=settings["log_every"],
            dataset_names=feed.names,
            last_good=lambda: None,
        )
        stack.callback(recorder.close)
        first = next(batches)
        update, state = _first_phase(config, mesh, feed.metadata, first)
        inside, total = time_steps(
            update, state, itertools.chain([first], batches), recorder, num_steps
        )
    images = sum(
        image.shape[0] * image.shape[1] for image in first.observation.image.values()
    )
    return [
        Row("step/outside_ratio", 1 - sum(inside) / total, "1"),
        Row("step/inside_s", statistics.median(inside), "s"),
        Row("step/outside_s", (total - sum(inside)) / num_steps, "s"),
        Row("step/images_per_s", num_steps * images / total, "images/s"),
        Row("step/steps", num_steps, "steps"),
    ]


def time_steps(
    update: Callable[[TrainState, Batch], tuple[TrainState, Mapping[str, jax.Array]]],
    state: TrainState,
    batches: Iterator[Batch],
    recorder: Recorder,
    num_steps: int,
) -> tuple[list[float], float]:
    """Runs steps one after the other.

    Returns:
        seconds inside each step, and seconds from the end of the last step that was not
        timed to the end of the last one.
    """
    inside, begun = [], 0.0
    for step in range(-_WARM_UP, num_steps):
        asked = time.perf_counter()
        batch = next(batches)
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(update(state, batch))
        end = time.perf_counter()
        if step < 0:
            begun = end
        else:
            inside.append(end - start)
        recorder.push(step + _WARM_UP + 1, metrics, batch, waited=start - asked)
    return inside, end - begun


def _first_phase(config, mesh, metadata, batch: Batch) -> tuple[Callable, TrainState]:
    """The compiled step and the state that training would begin with."""
    settings = config["train"]
    phase = make_phases(settings)[0]
    weights, root = dict(phase.loss_weights), jax.random.key(config["seed"])
    model = build_model(config["model"], metadata)
    draw = functools.partial(init_variables, model, weights)
    optimizer = make_optimizer(
        jax.eval_shape(draw, batch, root),
        phase.steps,
        phase.freeze,
        **{**config["optimizer"], **phase.optimizer},
    )
    decay = settings["ema_decay"]

    def create(batch, root):
        return init_state(optimizer, draw(batch, root), ema=decay > 0)

    shapes = jax.eval_shape(create, batch, root)
    sharding = state_sharding(mesh, shapes, settings["sharding"])
    augment = make_augment(settings["augment"])
    update = jax.jit(
        functools.partial(
            train_step,
            model,
            optimizer,
            augment,
            weights,
            decay,
            accumulate=settings["accumulate"],
        ),
        donate_argnums=0,
        out_shardings=(sharding, None),
    )
    state = jax.jit(create, out_shardings=sharding)(batch, root)
    return lambda state, batch: update(state, batch, root), state
