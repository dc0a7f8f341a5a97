"""What a run reports: metrics.jsonl, TensorBoard events, wandb and the progress bar.

Steps are dispatched ahead of the device, so their metrics are looked at later: the
recorder holds them as device arrays, waits for a step only when two newer ones are
already queued, and fetches numbers once per logging window.
"""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from vla_jax.types import Batch

# Steps that may be queued behind the one the device works on. Two keep it busy; more
# would only hold more batches in its memory.
_AHEAD = 2


class MetricsWriter:
    """Writes rows of scalars to every sink of a run. Only the first process writes."""

    def __init__(
        self,
        workdir: str | Path,
        *,
        step: int,
        config: Mapping[str, Any],
        tensorboard: bool = True,
        wandb: bool = False,
    ):
        """Opens the sinks, dropping what an earlier run wrote beyond `step`.

        Args:
            workdir: folder of the run.
            step: step from which training goes on, 0 for a new run.
            config: shown by wandb.
            tensorboard: whether to write events to `workdir/tensorboard`.
            wandb: whether to report to Weights & Biases.

        Raises:
            ValueError: wandb is wanted and not installed.
        """
        self._file = self._tensorboard = self._wandb = None
        if jax.process_index():
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        truncate(workdir / "metrics.jsonl", step)
        self._file = (workdir / "metrics.jsonl").open("a")
        if tensorboard:
            self._tensorboard = _open_tensorboard(workdir / "tensorboard", step)
        if wandb:
            self._wandb = _open_wandb(workdir, config)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Adds a row: floats go to every sink, strings to the JSON lines only."""
        if self._file is None:
            return
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
        finite = {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in row.items()
        }
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)

    def close(self) -> None:
        """Flushes and closes every sink."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


class Recorder:
    """Follows dispatched steps: throttles them, averages them, and watches for NaN."""

    def __init__(
        self,
        writer: MetricsWriter,
        *,
        step: int,
        num_steps: int,
        log_every: int,
        dataset_names: Sequence[str],
        last_good: Callable[[], int | None],
    ):
        """Starts the progress bar at `step` of `num_steps`.

        Args:
            log_every: a row is the mean over the steps since the last row.
            dataset_names: names that `Batch.dataset` counts.
            last_good: the last saved step, for the message when the loss is not finite.
        """
        self._writer, self._names, self._last_good = writer, dataset_names, last_good
        self._log_every = log_every
        self._queue: deque = deque()
        self._window: list = []
        self._phase, self._step_at_peak_s = "", None
        self._bar = tqdm(
            total=num_steps,
            initial=step,
            unit="step",
            disable=bool(jax.process_index()),
            # A log file gets a line now and then instead of a live bar.
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        )
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leaves the time since the last row (compilation, evaluation) out of rates."""
        self._since, self._waited = time.perf_counter(), 0.0

    def start_phase(self, name: str, step_at_peak_s: float | None = None) -> None:
        """Names the phase that the following rows belong to.

        Args:
            step_at_peak_s: seconds that the model's operations of a step would take at
                the peak of the devices; rows then tell the share that was reached.
        """
        self._phase, self._step_at_peak_s = name, step_at_peak_s
        self._bar.set_description(name)

    def push(
        self,
        step: int,
        metrics: Mapping[str, jax.Array],
        batch: Batch,
        *,
        waited: float,
    ) -> None:
        """Takes over a step that was just dispatched.

        Args:
            step: number of updates including this one.
            metrics: what `train_step` returned, still on the device.
            batch: what it was trained on; only counts and data set ids are kept.
            waited: seconds for which the loop waited for the batch.

        Raises:
            FloatingPointError: an earlier step had a loss or gradient that is not
                finite.
        """
        self._waited += waited
        cameras = batch.observation.image.values()
        images = sum(math.prod(image.shape[:2]) for image in cameras)
        examples = batch.action.shape[0]
        self._queue.append((step, metrics, batch.dataset, examples, images))
        while len(self._queue) > _AHEAD:
            self._retire()

    def drain(self) -> None:
        """Waits for every dispatched step and writes the row of the open window.

        Raises:
            FloatingPointError: as `push`.
        """
        while self._queue:
            self._retire()
        self._write_window()
        self.restart_clock()

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Writes a row of another kind, such as an evaluation."""
        self._writer.write(step, {"phase": self._phase, **row})

    def close(self) -> None:
        """Takes the progress bar down."""
        self._bar.close()

    def _retire(self) -> None:
        entry = self._queue.popleft()
        step, metrics = entry[:2]
        jax.block_until_ready(metrics["loss"])
        self._window.append(entry)
        self._bar.update(1)
        if step % self._log_every == 0:
            self._write_window()

    def _write_window(self) -> None:
        if not self._window:
            return
        steps, metrics, datasets, examples, images = zip(*self._window, strict=True)
        metrics = jax.device_get(metrics)
        for step, row, dataset in zip(steps, metrics, datasets, strict=True):
            if row["nonfinite"]:
                self._stop(step, row, dataset)
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        row = {
            name: float(np.mean([values[name] for values in metrics]))
            for name in metrics[0]
            if name not in ("nonfinite", "learning_rate")
        }
        row["learning_rate"] = float(metrics[-1]["learning_rate"])
        row["examples_per_s"] = sum(examples) / seconds
        row["images_per_s"] = sum(images) / seconds
        row["data_wait"] = self._waited / seconds  # share of the time
        postfix = f"loss {row['loss']:.4g}, {row['images_per_s']:.0f} images/s"
        if self._step_at_peak_s is not None:
            row["mfu"] = len(steps) * self._step_at_peak_s / seconds
            postfix += f", MFU {100 * row['mfu']:.1f} %"
        self.write(steps[-1], row)
        self._bar.set_postfix_str(postfix, False)
        self._window.clear()
        self._since, self._waited = now, 0.0

    def _stop(self, step: int, row: Mapping[str, Any], dataset) -> None:
        ids = set()
        if dataset is not None:
            for shard in dataset.addressable_shards:
                ids |= set(np.asarray(shard.data).tolist())
        names = [self._names[i] for i in sorted(ids)]
        saved = self._last_good()
        good = f"step {saved}" if saved is not None else "none"
        raise FloatingPointError(
            f"Training stopped at step {step}: the loss is {row['loss']} and the "
            f"gradient norm {row['gradient_norm']}. The batch came from the data sets "
            f"{names}. Last good checkpoint: {good}. Look at the data "
            "(launch/index.py --validate), or lower the learning rate, raise the "
            "warm-up or clip the gradient harder."
        )


def truncate(path: Path, step: int) -> None:
    """Drops the lines of a metrics file that lie beyond `step` or are incomplete.

    The file is replaced as a whole, so that a kill here loses nothing.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # The line that a killed run was writing.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(kept))
    os.replace(temporary, path)


def _open_tensorboard(folder: Path, step: int):
    # tensorboardX imports torch where it is installed, for tensors we never pass. A
    # None among the modules makes that import fail, which tensorboardX expects.
    blocked = "torch" not in sys.modules
    if blocked:
        sys.modules["torch"] = None
    try:
        from tensorboardX import SummaryWriter
    finally:
        if blocked:
            del sys.modules["torch"]
    return SummaryWriter(str(folder), purge_step=step + 1)


def _open_wandb(workdir: Path, config: Mapping[str, Any]):
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "train.wandb is True, but wandb is not installed: run `pip install wandb` "
            "or set train.wandb to False. metrics.jsonl is written in any case."
        ) from error
    # The run keeps its identity when it is resumed.
    name = workdir / "wandb_id"
    if not name.exists():
        name.write_text(wandb.util.generate_id())
    return wandb.init(
        project="vla_jax",
        name=workdir.name,
        id=name.read_text(),
        dir=str(workdir),
        config=dict(config),
        resume="allow",
    )
