"""What share of training time is spent outside the compiled step.

The steps run one by one, each waited for, with everything around them that training
does: batches come from the loader through the same threads, metrics go to the same
files. What passes between the end of one step and the start of the next is time that
the devices stand idle. Training itself does not wait, so there the share is smaller.
"""

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from vla_jax.benchmark.programs import compile_update
from vla_jax.benchmark.report import Row
from vla_jax.compile_cache import use_compile_cache
from vla_jax.train.config import resolve
from vla_jax.train.feed import make_feed
from vla_jax.train.metrics import MetricsWriter, Recorder
from vla_jax.train.sharding import make_mesh
from vla_jax.train.step import TrainState
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
    settings |= {"load": {}, "initial_checkpoint": ""}  # any weights will do
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
        first, root = next(batches), jax.random.key(config["seed"])
        compiled, state, _, _ = compile_update(config, feed.metadata, first)
        inside, total = time_steps(
            lambda state, batch: compiled(state, batch, root),
            state,
            itertools.chain([first], batches),
            recorder,
            num_steps,
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
