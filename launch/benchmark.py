"""Measures one part and writes the numbers as JSON.

    python launch/benchmark.py loader --compare=tfdata,dlimp --out=loader.json
    python launch/benchmark.py loader --data_dir=DATA --spec=metaworld --out=loader.json
    python launch/benchmark.py step --config=configs/act.py:small --compare=torch
    python launch/benchmark.py step --config=configs/quickstart.py --with_loader
    python launch/benchmark.py inference --config=configs/act.py,configs/msact.py
    python launch/benchmark.py inference --policy=policy --out=inference.json
    python launch/benchmark.py serve --policy=policy --out=serve.json

`loader` compares the data loader with raw JPEG decoding on the same images and threads,
and with the pipelines of TensorFlow that --compare names, and watches its memory; it
also times indexing, random access and what a mixture of many data sets costs. Without
--data_dir it makes a data set of its own.

`step` and `inference` time what configs train and play, with random weights and data
made up: nothing has to be on disk. Several configs, and their peers in PyTorch
(--compare=torch,torch_compile), take turns and are compared with the first. Any leaf is
a flag, for all of them: `--config.model.compute=dtype=bfloat16`. `--profile=FOLDER`
writes a trace and says what takes the time.

`step --with_loader` trains on the config's data sets and takes the time that passes
outside the compiled step. `inference --policy` times bundles of `launch/export.py`,
exported and live; several take turns and are compared with the first. `serve` times one
bundle behind its server, as clients see it.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from vla_jax.benchmark.access import measure_access, measure_index
from vla_jax.benchmark.configs import (
    PEERS,
    label_configs,
    load_config,
    measure_configs,
    split_names,
)
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
    "image_size", 256, "height and width of the images in pixels"
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "samples in a batch")
_NUM_BATCHES = flags.DEFINE_integer(
    "num_batches", 100, "batches, steps or predictions per measurement"
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "measurements of each arm")
_COMPARE = flags.DEFINE_list(
    "compare",
    [],
    "what to compare with: pipelines tfdata, dlimp; peers of configs torch, "
    "torch_compile",
)
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
_THREADS = flags.DEFINE_integer(
    "threads", 0, "decoding threads, or cores for every config; 0: all cores"
)
_EPISODES = flags.DEFINE_integer(
    "episodes", 40, "size of the data set made without --data_dir"
)
_OUT = flags.DEFINE_string("out", "", "JSON file to write")
_CONFIG = flags.DEFINE_string(
    "config", "", "experiments for `step` and `inference`, file.py or file.py:variant"
)
_WITH_LOADER = flags.DEFINE_bool(
    "with_loader", False, "`step` with batches from the data sets of the config"
)
_PROFILE = flags.DEFINE_string(
    "profile", "", "folder for traces of `step` and `inference` of configs"
)
_POLICY = flags.DEFINE_list("policy", [], "bundle, for `inference` and `serve`")
_BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes", ["1", "8"], "rows of a call in `inference` of bundles"
)
_CLIENTS = flags.DEFINE_list("clients", ["1", "4", "8"], "clients at a time in `serve`")

_COMMANDS = ("loader", "step", "inference", "serve")


def main(argv: list[str]) -> None:
    overrides = [text for text in argv[1:] if text.startswith("--config.")]
    words = [text for text in argv[1:] if not text.startswith("--config.")]
    if len(words) != 1 or words[0] not in _COMMANDS:
        raise app.UsageError(f"Name one benchmark of {list(_COMMANDS)}, got {words}.")
    if overrides and not _CONFIG.value:
        raise app.UsageError(f"{overrides[0]} needs --config.")
    try:
        measure = {
            "loader": _loader,
            "step": lambda: _step(overrides),
            "inference": lambda: _inference(overrides),
            "serve": _serve,
        }
        rows = measure[words[0]]()
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


def _step(overrides: Sequence[str]) -> list[Row]:
    if not _CONFIG.value:
        raise app.UsageError("`step` needs --config, such as configs/quickstart.py.")
    if not _WITH_LOADER.value:
        return _configs("step", overrides)
    (name,) = split_names(_CONFIG.value)
    return measure_step(load_config(name, overrides), num_steps=_NUM_BATCHES.value)


def _inference(overrides: Sequence[str]) -> list[Row]:
    from vla_jax.benchmark.inference import bundle_arms, measure_inference

    if _CONFIG.value:
        return _configs("inference", overrides)
    names = _POLICY.value
    if not names:
        raise app.UsageError(
            "`inference` needs --config, or --policy, made by launch/export.py."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{names} names one of them twice.")
    sizes = tuple(map(int, _BATCH_SIZES.value))
    policies = {
        name if len(names) > 1 else "": bundle_arms(name, sizes) for name in names
    }
    return measure_inference(policies, num_calls=_NUM_BATCHES.value)


def _configs(part: str, overrides: Sequence[str]) -> list[Row]:
    labels = label_configs(split_names(_CONFIG.value))
    return measure_configs(
        part,
        {label: load_config(name, overrides) for label, name in labels.items()},
        peers=choose_rivals(_COMPARE.value, PEERS),
        count=_NUM_BATCHES.value,
        turns=_REPEATS.value,
        threads=_THREADS.value,
        profile=_PROFILE.value,
    )


def _serve() -> list[Row]:
    from vla_jax.benchmark.serve import measure_serve

    if len(_POLICY.value) != 1:
        raise app.UsageError("`serve` needs one --policy, made by launch/export.py.")
    clients = tuple(map(int, _CLIENTS.value))
    return measure_serve(_POLICY.value[0], clients, num_requests=_NUM_BATCHES.value)


def _parse(argv: list[str]) -> list[str]:
    """Leaves `--config.` flags to `main`; refuses others that are unknown."""
    mine = [text for text in argv if text.startswith("--config.")]
    rest = [text for text in argv if not text.startswith("--config.")]
    return [*flags.FLAGS(rest), *mine]


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
