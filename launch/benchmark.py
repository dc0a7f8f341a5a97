"""Measures one part and writes the numbers as JSON.

    python launch/benchmark.py loader --compare=tfdata,dlimp --out=loader.json
    python launch/benchmark.py loader --data_dir=DATA --spec=metaworld --out=loader.json
    python launch/benchmark.py step --config=configs/quickstart.py --out=step.json
    python launch/benchmark.py inference --policy=policy --out=inference.json
    python launch/benchmark.py serve --policy=policy --out=serve.json

`loader` compares the data loader with raw JPEG decoding on the same images and threads,
and with the pipelines of TensorFlow that --compare names, and watches its memory; it
also times indexing, random access and what a mixture of many data sets costs. Without
--data_dir it makes a data set of its own. `step` takes the time that training spends
outside the compiled step. `inference` times a bundle of `launch/export.py`, exported
and live, and `serve` the same behind its server, as clients see it.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from vla_jax.benchmark.access import measure_access, measure_index
from vla_jax.benchmark.dataset import write_benchmark_dataset, write_copied_dataset
from vla_jax.benchmark.loader import measure_growth, measure_throughput
from vla_jax.benchmark.mixture import measure_mixture
from vla_jax.benchmark.report import Row, write_report
from vla_jax.benchmark.step import measure_step
from vla_jax.benchmark.turns import choose_rivals
from vla_jax.data.index import open_index
from vla_jax.data.source import open_source

_DATA_DIR = flags.DEFINE_string(
    "data_dir", "", "RLDS folder; empty: a data set made for the purpose"
)
_SPEC = flags.DEFINE_string("spec", "metaworld", "data set entry, or file.py:NAME")
_CAMERAS = flags.DEFINE_list("cameras", ["primary", "wrist"], "cameras to load")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 128, "height and width of the images in pixels"
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "samples in a batch")
_NUM_BATCHES = flags.DEFINE_integer(
    "num_batches", 100, "batches or steps per measurement"
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "measurements of each arm")
_COMPARE = flags.DEFINE_list("compare", [], "pipelines to compare with: tfdata, dlimp")
_SHUFFLE = flags.DEFINE_integer(
    "shuffle", 4096, "steps that the pipelines of --compare shuffle together"
)
_MEMORY_SAMPLES = flags.DEFINE_integer(
    "memory_samples", 100_000, "samples over which memory is watched; 0: skip"
)
_INDEX_EPISODES = flags.DEFINE_integer(
    "index_episodes", 400, "2 MB each, of the data set that is indexed; 0: skip"
)
_ACCESS_EPISODES = flags.DEFINE_integer(
    "access_episodes", 10_000, "of the data set for random access; 0: skip"
)
_MIXTURE_EPISODES = flags.DEFINE_integer(
    "mixture_episodes", 2_000, "of each data set of a mixture of many; 0: skip"
)
_THREADS = flags.DEFINE_integer("threads", 0, "decoding threads; 0: one per core")
_EPISODES = flags.DEFINE_integer(
    "episodes", 40, "size of the data set made without --data_dir"
)
_OUT = flags.DEFINE_string("out", "", "JSON file to write")
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "experiment to measure with `step`",
    lock_config=False,
    accept_new_attributes=True,
)

_POLICY = flags.DEFINE_string("policy", "", "bundle, for `inference` and `serve`")
_CLIENTS = flags.DEFINE_list("clients", ["1", "4", "8"], "clients at a time in `serve`")

_COMMANDS = ("loader", "step", "inference", "serve")


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[1] not in _COMMANDS:
        raise app.UsageError(
            f"Name one benchmark of {list(_COMMANDS)}, got {argv[1:]}."
        )
    try:
        measure = dict(
            zip(_COMMANDS, (_loader, _step, _inference, _serve), strict=True)
        )
        rows = measure[argv[1]]()
    except ValueError as error:
        sys.exit(f"error: {error}")
    write_report(rows, _OUT.value)


def _loader() -> list[Row]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rivals = choose_rivals(_COMPARE.value)
        path = _DATA_DIR.value or write_benchmark_dataset(
            folder, num_episodes=_EPISODES.value, image_size=_IMAGE_SIZE.value
        )
        config = _config(path, _SPEC.value, _CAMERAS.value, _IMAGE_SIZE.value)
        rows = measure_throughput(
            config,
            num_batches=_NUM_BATCHES.value,
            turns=_REPEATS.value,
            rivals=rivals,
            shuffle=_SHUFFLE.value,
        )
        if _MEMORY_SAMPLES.value:
            rows += measure_growth(
                open_source(config), num_samples=_MEMORY_SAMPLES.value
            )
        return rows + _index_rows(folder)


def _index_rows(folder: Path) -> list[Row]:
    """Rows about indexes, each of a data set made for the purpose."""
    rows = []
    if _INDEX_EPISODES.value:
        path = write_copied_dataset(
            folder / "long", num_episodes=_INDEX_EPISODES.value, num_steps=100
        )
        rows += measure_index(path, "metaworld", turns=_REPEATS.value)
        shutil.rmtree(folder / "long")
    if _ACCESS_EPISODES.value:
        path = write_copied_dataset(
            folder / "many", num_episodes=_ACCESS_EPISODES.value, num_steps=4
        )
        index = open_index(path, "metaworld", progress=False)
        rows += measure_access(index)
        shutil.rmtree(folder / "many")
    if _MIXTURE_EPISODES.value:
        path = write_copied_dataset(
            folder / "mixed",
            num_episodes=_MIXTURE_EPISODES.value,
            num_steps=20,
            image_size=16,
        )
        open_index(path, "metaworld", progress=False)
        config = _config(path, "metaworld", ("primary",), 16)
        rows += measure_mixture(folder / "copies", config)
    return rows


def _config(path, spec: str, cameras: Sequence[str], image_size: int) -> dict:
    return {
        "datasets": ({"path": str(path), "spec": spec},),
        "cameras": tuple(cameras),
        "image_size": (image_size, image_size),
        "window": 1,
        "chunk": 16,
        "normalization": {"action": "quantile", "proprio": "mean_std"},
        "text": {"length": 16, "model": ""},
        "batch_size": _BATCH_SIZE.value,
        "num_threads": _THREADS.value or os.cpu_count(),
        "prefetch": 4,
    }


def _step() -> list[Row]:
    if _CONFIG.value is None:
        raise app.UsageError("`step` needs --config, such as configs/quickstart.py.")
    return measure_step(_CONFIG.value.to_dict(), num_steps=_NUM_BATCHES.value)


def _inference() -> list[Row]:
    from vla_jax.benchmark.inference import measure_inference

    return measure_inference(_bundle("inference"), num_calls=_NUM_BATCHES.value)


def _serve() -> list[Row]:
    from vla_jax.benchmark.serve import measure_serve

    clients = tuple(map(int, _CLIENTS.value))
    return measure_serve(_bundle("serve"), clients, num_requests=_NUM_BATCHES.value)


def _bundle(command: str) -> str:
    if not _POLICY.value:
        raise app.UsageError(f"`{command}` needs --policy, made by launch/export.py.")
    return _POLICY.value


if __name__ == "__main__":
    app.run(main)
