"""A policy run over a recorded episode: its points, their future, and its maps."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vla_jax.data.batch import make_batch
from vla_jax.data.image import decode
from vla_jax.data.source import Source, open_source
from vla_jax.data.statistics import Statistics, normalize
from vla_jax.data.windows import window_and_chunk
from vla_jax.models.build import build_model
from vla_jax.names import did_you_mean
from vla_jax.train.checkpoint import find_folder, restore_variables
from vla_jax.types import batch_from_dict

_ROWS = 8  # frames in one call of the policy


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What a policy saw and did at every step of an episode.

    Attributes:
        images: camera to uint8 `[T h w 3]`, as recorded.
        maps: camera to float32 `[T h' w']`, or `[T k h' w']` with one map per point.
        points: camera to float32 `[T k 2]`, (x, y) in -1..1.
        future_points: camera to float32 `[T c k 2]`, what they were foreseen to be.
        steps_per_second: of the policy.
        instruction: the first one of the episode; may be empty.
    """

    images: Mapping[str, np.ndarray]
    maps: Mapping[str, np.ndarray]
    points: Mapping[str, np.ndarray]
    future_points: Mapping[str, np.ndarray]
    steps_per_second: float
    instruction: str


def inspect_episode(
    checkpoint: str | Path,
    data_dir: str | None = None,
    *,
    spec: str = "",
    split: str = "validation",
    episode: int = 0,
    step: int | None = None,
) -> Inspection:
    """Runs a trained policy over one recorded episode.

    Args:
        checkpoint: a run folder or its checkpoint folder.
        data_dir: folder of an RLDS data set; the policy's first one when None.
        spec: its entry; that of the policy's first data set when empty.
        split: "validation" or "train".
        episode: number within the split.
        step: a saved step; the latest when None.

    Raises:
        ValueError: data or a checkpoint that cannot be used, no such episode, or a
            policy without maps and points.
    """
    folder = find_folder(checkpoint)
    config = json.loads((folder / "config.json").read_text())
    metadata = json.loads((folder / "metadata.json").read_text())
    source = _open(config["data"], data_dir, spec)
    samples = _samples(source, split, episode)
    model = build_model(config["model"], metadata)
    variables = jax.device_put(restore_variables(folder, step))

    @jax.jit
    def diagnose(variables, observation, task):
        rng = jax.random.key(0)
        return model.apply(variables, observation, task, rng, method="diagnose")

    found = []
    for start in range(0, len(samples), _ROWS):
        rows = samples[start : start + _ROWS]
        padded = np.concatenate([rows, np.repeat(rows[-1:], _ROWS - len(rows))])
        batch = make_batch(source, np.zeros(_ROWS, np.int32), padded, split=split)
        batch["observation"]["proprio"] = _proprio(source, split, padded, metadata)
        batch = batch_from_dict(batch)
        result = diagnose(variables, batch.observation, batch.task)
        found.append(jax.tree.map(lambda x, n=len(rows): np.asarray(x[:n]), result))
    found = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    if not found["maps"]:
        raise ValueError(
            f"The policy in {folder} has no attention maps: none of its modules in "
            "model.attention makes any."
        )
    index, place = source.indexes[0], source.episodes(split)[0].locate(samples)
    steps = place.first_step + place.step
    instructions = index.instructions(int(steps[0]))
    return Inspection(
        images={
            camera: np.stack([decode(index.read_image(camera, int(s))) for s in steps])
            for camera in found["maps"]
        },
        maps=found["maps"],
        points=found.get("camera_points", {}),
        future_points=found.get("camera_future_points", {}),
        steps_per_second=index.spec.control_hz / source.skips[0],
        instruction=instructions[0] if instructions else "",
    )


def _open(data: Mapping[str, Any], data_dir: str | None, spec: str) -> Source:
    """The data set under the policy's own settings, without labels."""
    first = next((entry for entry in data["datasets"] if "path" in entry), {})
    kept = {key: first[key] for key in ("frame_skip", "target_hz") if key in first}
    data_dir = data_dir or first.get("path")
    if not data_dir:
        raise ValueError("The policy's data sets have no paths; name a data_dir.")
    entry = dict(path=data_dir, spec=spec or first.get("spec", ""), **kept)
    alone = dict(datasets=(entry,), batch_size=1, num_threads=0, source="index")
    settings = {**data, **alone, "labels": (), "share_statistics": False}
    settings.pop("stream", None)
    return open_source(settings)


def _samples(source: Source, split: str, episode: int) -> np.ndarray:
    """Numbers of the samples of an episode, one for every step of the policy."""
    sizes = source.sizes(split)  # refuses an unknown split
    episodes = source.episodes(split)[0]
    if not sizes[0]:
        other = "train" if split == "validation" else "validation"
        raise ValueError(f"There are no episodes in split {split!r}; take {other!r}.")
    if not 0 <= episode < len(episodes.number):
        raise ValueError(
            f"Split {split!r} has the episodes 0 to {len(episodes.number) - 1}, no "
            f"{episode}."
        )
    steps = np.arange(0, episodes.length[episode], source.skips[0])
    return episodes.first_sample[episode] + steps


def _proprio(source, split, samples, metadata) -> np.ndarray:
    """Proprio `[b t p]`, normalized as the policy learned it, whatever this data is."""
    names = [entry["name"] for entry in metadata["datasets"]]
    index = source.indexes[0]
    name = index.spec.name if index.spec.name in names else names[0]
    if len(names) > 1 and index.spec.name not in names:
        raise ValueError(
            f"The policy was not trained on {index.spec.name!r}; "
            f"{did_you_mean(index.spec.name, names)}"
        )
    entry = metadata["datasets"][names.index(name)]
    if index.proprio.shape[1] != entry["proprio_dim"]:
        raise ValueError(
            f"The proprio of {index.spec.name!r} has {index.proprio.shape[1]} numbers, "
            f"that of {name!r}, which the policy knows, {entry['proprio_dim']}."
        )
    place = source.episodes(split)[0].locate(samples)
    past, *_ = window_and_chunk(
        place.step, place.length, window=source.window, chunk=1, skip=source.skips[0]
    )
    values = normalize(
        index.proprio[place.first_step[:, None] + past],
        Statistics.from_json(entry["statistics"]["proprio"]),
        metadata["normalization"]["proprio"],
    )
    missing = metadata["proprio_dim"] - values.shape[-1]
    return np.pad(values, ((0, 0), (0, 0), (0, missing))).astype(np.float32)
