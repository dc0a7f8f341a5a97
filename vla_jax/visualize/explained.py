"""Recorded episodes as a policy made of parts explains them."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from vla_jax.data.batch import make_batch
from vla_jax.data.source import Source, open_source
from vla_jax.models.build import build_model
from vla_jax.train.checkpoint import find_folder, restore_variables
from vla_jax.types import batch_from_dict

_BATCH = 8  # samples explained in one call


class Run(NamedTuple):
    """A trained policy and the data it was trained on."""

    model: nn.Module
    variables: Mapping[str, Any]
    source: Source
    gripper: tuple[int, ...]


class Explained(NamedTuple):
    """An episode, or every few steps of it; chunks are normalized.

    Attributes:
        name: data set and number of the episode.
        dataset: position in `source.indexes`.
        step: int `[n]`, where the chunks begin.
        row: int `[n]`, the same steps within the data set.
        image: camera -> uint8 `[n h w 3]`.
        action, anchor, residual, final: float32 `[n c a]`; probabilities in the
            gripper's dimensions of the last three.
        mask: bool `[n c a]`, which actions were recorded.
    """

    name: str
    dataset: int
    step: np.ndarray
    row: np.ndarray
    image: Mapping[str, np.ndarray]
    action: np.ndarray
    anchor: np.ndarray
    residual: np.ndarray
    final: np.ndarray
    mask: np.ndarray


def open_run(checkpoint: str | Path, *, step: int | None, data_dir: str | None) -> Run:
    """Opens a run and its data.

    Args:
        checkpoint: the run's folder.
        step: a saved step; the latest when None.
        data_dir: where the first data set lies now; as trained when None.

    Raises:
        ValueError: nothing saved there, or a head that is not made of parts.
    """
    folder = find_folder(checkpoint)
    config = json.loads((folder / "config.json").read_text())
    head = config["model"]["head"]
    if head.get("name") != "hierarchical":
        raise ValueError(
            f"{checkpoint} has a {head.get('name')!r} head, which leaves no residual; "
            "'hierarchical' does."
        )
    if data_dir is not None:
        config["data"]["datasets"][0]["path"] = data_dir
    # A policy is explained with the instruction that it would be given.
    source = dataclasses.replace(open_source(config["data"]), text_dropout=0.0)
    model = build_model(config["model"], source.metadata())
    variables = jax.device_put(restore_variables(folder, step))
    return Run(model, variables, source, tuple(head["anchor"].get("gripper_dims", ())))


def explain_episodes(
    run: Run, split: str, *, episodes: int, every: int
) -> Iterator[Explained]:
    """Explains the first `episodes` episodes of each data set, every few steps.

    Raises:
        ValueError: an unknown split.
    """

    def explain(variables, batch):
        rng = jax.random.key(0)
        inputs = (batch.observation, batch.task, rng)
        return run.model.apply(variables, *inputs, method="explain")

    explain = jax.jit(explain)
    for dataset, found in enumerate(run.source.episodes(split)):
        name = run.source.indexes[dataset].spec.name
        for row in range(min(episodes, len(found.number))):
            step = np.arange(0, found.length[row], every)
            parts = []
            for start in range(0, len(step), _BATCH):
                some = step[start : start + _BATCH]
                filled = np.pad(some, (0, _BATCH - len(some)), mode="edge")
                sample = found.first_sample[row] + filled
                numbers = np.full(_BATCH, dataset, np.int32)
                batch = make_batch(run.source, numbers, sample, split=split)
                batch["labels"] = {}
                chunks = explain(run.variables, batch_from_dict(batch))
                image = {c: v[:, -1] for c, v in batch["observation"]["image"].items()}
                content = dict(
                    image=image,
                    action=batch["action"],
                    mask=batch["action_mask"],
                    **{key: np.asarray(value) for key, value in chunks.items()},
                )
                parts.append(jax.tree.map(lambda x, n=len(some): x[:n], content))
            whole = jax.tree.map(lambda *x: np.concatenate(x), *parts)
            yield Explained(
                name=f"{name}-{found.number[row]:04d}",
                dataset=dataset,
                step=step,
                row=found.first_step[row] + step,
                **whole,
            )
