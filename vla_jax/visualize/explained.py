"""Recorded episodes as a policy made of parts explains them."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from vla_jax.data.source import Source, open_source
from vla_jax.models.build import build_model
from vla_jax.train.checkpoint import restore_variables
from vla_jax.types import batch_from_dict
from vla_jax.visualize.replay import read_config, replay


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
    folder, config = read_config(checkpoint)
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

    @jax.jit
    def explain(variables, batch):
        inputs = (batch.observation, batch.task, jax.random.key(0))
        return run.model.apply(variables, *inputs, method="explain")

    def look(numbers, batch):
        del numbers
        batch["labels"] = {}
        images = batch["observation"]["image"]
        return dict(
            image={camera: value[:, -1] for camera, value in images.items()},
            action=batch["action"],
            mask=batch["action_mask"],
            **explain(run.variables, batch_from_dict(batch)),
        )

    for dataset, found in enumerate(run.source.episodes(split)):
        name = run.source.indexes[dataset].spec.name
        for row in range(min(episodes, len(found.number))):
            step = np.arange(0, found.length[row], every)
            samples = found.first_sample[row] + step
            whole = replay(look, run.source, samples, split=split, dataset=dataset)
            yield Explained(
                name=f"{name}-{found.number[row]:04d}",
                dataset=dataset,
                step=step,
                row=found.first_step[row] + step,
                **whole,
            )
