"""Recorded samples through a policy, in calls of one size, so that it compiles once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vla_jax.data.batch import make_batch
from vla_jax.data.source import Source
from vla_jax.train.checkpoint import find_folder

_ROWS = 8  # samples in one call


def read_config(checkpoint: str | Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint folder of a run, and its config.

    Raises:
        ValueError: nothing was saved there.
    """
    folder = find_folder(checkpoint)
    return folder, json.loads((folder / "config.json").read_text())


def replay(
    function: Callable[[np.ndarray, dict[str, Any]], Any],
    source: Source,
    samples: np.ndarray,
    *,
    split: str,
    dataset: int = 0,
) -> Any:
    """What `function` finds in each of the samples.

    Args:
        function: from numbers of samples int `[n]` and their batch, as `make_batch`
            makes it, to a tree of arrays `[n ...]`; n is always the same.
        source: the data.
        samples: numbers within the data set and split, int `[m]`.
        split: "train" or "validation".
        dataset: position in `source.indexes`.

    Returns:
        the tree, of NumPy arrays `[m ...]`.
    """
    parts = []
    for start in range(0, len(samples), _ROWS):
        some = samples[start : start + _ROWS]
        filled = np.pad(some, (0, _ROWS - len(some)), mode="edge")
        numbers = np.full(_ROWS, dataset, np.int32)
        found = function(filled, make_batch(source, numbers, filled, split=split))
        parts.append(jax.tree.map(lambda x, n=len(some): np.asarray(x)[:n], found))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
