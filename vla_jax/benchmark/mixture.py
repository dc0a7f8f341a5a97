"""What one more data set in a mixture costs: memory, threads and open files.

    python -m vla_jax.benchmark.mixture CONFIG.json

loads batches of a config and prints what the process then holds.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vla_jax.benchmark.report import Row, resident_mb

_FEW, _MANY = 2, 62
_SAMPLES = 100  # per data set, so that all of them are in use


def measure_mixture(folder: str | Path, config: Mapping[str, Any]) -> list[Row]:
    """Compares a mixture of 62 data sets with one of 2, each in a process of its own.

    Args:
      folder: where copies of the data set may be made, on its own file system: they
        are links, but every one is opened, mapped and read like a data set of its own.
      config: of `open_source`, one data set; its index must exist, beside the data.
    """
    (dataset,) = config["datasets"]
    copies = [
        {**dataset, "path": str(copy_linked(dataset["path"], Path(folder) / str(n)))}
        for n in range(_MANY)
    ]
    held = []
    for count in tqdm((_FEW, _MANY), desc="mixtures"):
        setting = json.dumps({**config, "datasets": copies[:count]})
        command = [sys.executable, "-m", "vla_jax.benchmark.mixture", setting]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"A mixture could not be loaded:\n{done.stderr[-2000:]}")
        held.append(json.loads(done.stdout.splitlines()[-1]))
    few, many = held
    more = {key: (many[key] - few[key]) / (_MANY - _FEW) for key in few}
    return [
        Row("mixture/mb_per_dataset", more["rss_mb"], "MB"),
        Row("mixture/threads_per_dataset", more["threads"], "threads"),
        Row("mixture/open_files", many["files"], "files"),
        Row("mixture/datasets", _MANY, "data sets"),
    ]


def copy_linked(path: str | Path, copy: Path) -> Path:
    """A copy of a version folder, its index included, whose files are hard links."""
    place = copy / Path(path).parent.name / Path(path).name
    shutil.copytree(path, place, copy_function=os.link)
    return place


def hold(config: Mapping[str, Any]) -> dict[str, float]:
    """Loads batches of a config; what the process holds while the loader runs."""
    from vla_jax.data.loader import train_batches
    from vla_jax.data.source import open_source

    source = open_source(config)
    samples = _SAMPLES * len(config["datasets"])
    with train_batches(source, seed=0) as batches:
        for _ in range(-(-samples // source.batch_size)):
            next(batches)
        return {
            "rss_mb": resident_mb(),
            "threads": len(os.listdir("/proc/self/task")),
            "files": len(os.listdir("/proc/self/fd")),
        }


if __name__ == "__main__":
    print(json.dumps(hold(json.loads(sys.argv[1]))))
