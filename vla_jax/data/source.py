"""What a run trains on: opened indexes, weights, tokenizer, and the sizes of a batch.

A `Source` is only a description. It is cheap to pickle, has no threads and no open
files of its own, and `metadata` condenses it to what a checkpoint needs to be used
where the data is not.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_jax.data.episodes import Episodes, split_episodes
from vla_jax.data.index import Index, open_index
from vla_jax.data.labels import Label, build_labels
from vla_jax.data.source_config import check_data_config
from vla_jax.data.standardize import resolve_spec
from vla_jax.data.statistics import normalize
from vla_jax.data.statistics_choice import choose_statistics
from vla_jax.data.text import Tokenizer
from vla_jax.data.windows import choose_skip
from vla_jax.names import did_you_mean


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Data sets to train on and how a batch is made of them; see `open_source`.

    Attributes:
        indexes: one per data set.
        weights: share of each data set in the mixture, in any unit.
        tokenizer: of the instructions.
        cameras: standard names, the images of every batch.
        image_size: height and width in pixels.
        window: frames the policy sees.
        chunk: actions it predicts.
        normalization: kind for "action" and "proprio".
        text_length: tokens of an instruction.
        truncate: cut longer instructions off instead of refusing them.
        text_dropout: share of the training samples that lose their instruction.
        frame_skips: per data set, recorded steps per step of the policy; 1 if empty.
        batch_size: samples per step over all hosts.
        num_threads: threads that make batches; 0 makes them in the calling thread.
        prefetch: batches made ahead.
        depth: standard names, the depth images of every batch.
        camera_matrices: whether batches have the matrices of the cameras.
        labels: by name, what training also gets to know.
        statistics_files: per data set, where its statistics come from; empty for the
            data set's own.
        share_statistics: normalize all data sets alike, by the mixture's statistics.
    """

    indexes: tuple[Index, ...]
    weights: tuple[float, ...]
    tokenizer: Tokenizer
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    window: int
    chunk: int
    normalization: Mapping[str, str]
    text_length: int
    truncate: bool
    batch_size: int
    num_threads: int
    prefetch: int
    depth: tuple[str, ...] = ()
    camera_matrices: bool = False
    labels: Mapping[str, Label] = dataclasses.field(default_factory=dict)
    statistics_files: tuple[str, ...] = ()
    share_statistics: bool = False
    text_dropout: float = 0.0
    frame_skips: tuple[int, ...] = ()

    @functools.cached_property
    def skips(self) -> tuple[int, ...]:
        """Per data set: recorded steps per step of the policy."""
        return self.frame_skips or (1,) * len(self.indexes)

    @functools.cached_property
    def statistics(self) -> tuple[Mapping[str, Any], ...]:
        """Per data set: "action" and "proprio" that normalize it."""
        files = self.statistics_files or ("",) * len(self.indexes)
        return choose_statistics(
            self.indexes,
            files,
            self.skips,
            self.weights if self.share_statistics else None,
        )

    @functools.cached_property
    def action_dim(self) -> int:
        """Size of the widest action."""
        return max(index.action.shape[1] for index in self.indexes)

    @functools.cached_property
    def proprio_dim(self) -> int:
        """Size of the widest proprio."""
        return max(index.proprio.shape[1] for index in self.indexes)

    @functools.cached_property
    def instructions(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Per data set: tokens and mask, [languages, l], of all its instructions."""
        return tuple(
            self.tokenizer.encode(
                index.languages, self.text_length, truncate=self.truncate
            )
            for index in self.indexes
        )

    def episodes(self, split: str) -> tuple[Episodes, ...]:
        """Per data set: the episodes of split "train" or "validation"."""
        if split not in self._episodes:
            raise ValueError(
                f"Unknown split {split!r}; {did_you_mean(split, self._episodes)}"
            )
        return self._episodes[split]

    def sizes(self, split: str) -> tuple[int, ...]:
        """Per data set: number of samples in split "train" or "validation"."""
        return tuple(episodes.num_samples for episodes in self.episodes(split))

    def metadata(self) -> dict:
        """All that using the policy needs to know of its data, ready for JSON."""
        return {
            "datasets": [
                {
                    "name": index.spec.name,
                    "weight": weight,
                    "cameras": list(index.cameras),
                    "action": list(index.spec.action),
                    "control_hz": index.spec.control_hz / skip,
                    "num_episodes": index.counts["episodes"].get("train", 0),
                    "num_steps": num_steps,
                    "action_dim": int(index.action.shape[1]),
                    "proprio_dim": int(index.proprio.shape[1]),
                    "statistics": {
                        key: value.to_json() for key, value in statistics.items()
                    },
                }
                for index, weight, num_steps, statistics, skip in zip(
                    self.indexes,
                    self.weights,
                    self.sizes("train"),
                    self.statistics,
                    self.skips,
                    strict=True,
                )
            ],
            "cameras": list(self.cameras),
            "image_size": list(self.image_size),
            "window": self.window,
            "chunk": self.chunk,
            "action_dim": self.action_dim,
            "proprio_dim": self.proprio_dim,
            "normalization": dict(self.normalization),
            "text_length": self.text_length,
            "text_truncate": self.truncate,
            "vocab_size": self.tokenizer.vocab_size,
            **self._geometry(),
        }

    def _geometry(self) -> dict:
        """Depth cameras and matrices of a policy that reads such; else nothing."""
        found: dict = {"depth": list(self.depth)} if self.depth else {}
        if self.camera_matrices:
            found["camera_matrices"] = {
                index.spec.name: {
                    camera: sorted(matrices)
                    for camera, matrices in sorted(index.camera_matrices.items())
                    if camera in self.cameras + self.depth
                }
                for index in self.indexes
            }
        if self.depth:
            found["depth_cameras"] = {
                index.spec.name: sorted({*index.depth_spans} & {*self.depth})
                for index in self.indexes
            }
        return found

    @functools.cached_property
    def _episodes(self) -> dict[str, tuple[Episodes, ...]]:
        return {
            "train": tuple(split_episodes(index, "train") for index in self.indexes),
            "validation": tuple(
                split_episodes(index, index.validation_split) for index in self.indexes
            ),
        }


def open_source(config: Mapping[str, Any]) -> Source:
    """Opens the data sets of a config, indexing those that never were.

    Args:
      config: the `data` section as a plain dict: `datasets`, a tuple of dicts with
        `path`, `spec`, `weight` (1 if left out), `per_step` (True: the weight
        multiplies the steps of the data set), `statistics` (a file of octo, openpi or
        LeRobot to normalize by; their own if left out), and `frame_skip` or
        `target_hz`, to act at a lower rate than was recorded; or with `mixture` and
        `data_dir`, as `vla_jax.data.mixtures` takes them; `cameras`; `image_size`;
        `window`; `chunk`; `normalization`, a dict with "action" and "proprio"; `text`,
        a dict with `length`, `model` (empty: the shipped one) and optionally `truncate`
        and `dropout`; `batch_size`; `num_threads`; `prefetch`; and optionally `depth`,
        names of depth cameras, `camera_matrices`, a bool, `labels`, a tuple of dicts as
        `vla_jax.data.labels` takes them, and `share_statistics`, a bool. `source` is
        "index" if left out; "stream" and "dlimp" read the data sets in passing with
        TensorFlow, see `vla_jax.data.stream_source`, which also says what may stand in
        `stream`.

    Raises:
      ValueError: a missing or unknown key, a camera that no data set has, an
        instruction that is too long, or a data set without training steps.
    """
    config = check_data_config(config)
    indexed = config.get("source", "index") == "index"
    if indexed:
        make, indexes, weight = Source, _open_indexes(config["datasets"]), _weight
        files = tuple(d.get("statistics", "") for d in config["datasets"])
        skips = _skips(config["datasets"], indexes)
    else:
        # These import this file.
        from vla_jax.data.stream_source import open_streams, weight

        if config.get("share_statistics", False):
            raise ValueError("data.share_statistics needs data.source='index'.")
        make, indexes = open_streams(config)
        files = skips = ()
    source = make(
        indexes=tuple(indexes),
        weights=tuple(map(weight, config["datasets"], indexes)),
        tokenizer=Tokenizer.from_file(config["text"]["model"]),
        cameras=tuple(config["cameras"]),
        image_size=tuple(config["image_size"]),
        window=config["window"],
        chunk=config["chunk"],
        normalization=dict(config["normalization"]),
        text_length=config["text"]["length"],
        truncate=config["text"].get("truncate", False),
        batch_size=config["batch_size"],
        num_threads=config["num_threads"],
        prefetch=config["prefetch"],
        depth=tuple(config.get("depth", ())),
        camera_matrices=config.get("camera_matrices", False),
        labels=build_labels(config.get("labels", ()), indexes, config["chunk"]),
        statistics_files=files,
        share_statistics=config.get("share_statistics", False),
        text_dropout=config["text"].get("dropout", 0.0),
        frame_skips=skips,
    )
    _check_source(source)
    return source


_LEAST = {"window": 1, "chunk": 1, "batch_size": 1, "num_threads": 0, "prefetch": 0}


def _check_source(source: Source) -> None:
    """Refuses what would otherwise fail in the middle of training."""
    cameras = sorted({camera for index in source.indexes for camera in index.cameras})
    for camera in source.cameras:
        if camera not in cameras:
            raise ValueError(
                f"No data set has a camera '{camera}'; data.cameras can be {cameras}."
            )
    depth = sorted({camera for index in source.indexes for camera in index.depth_spans})
    for camera in source.depth:
        if camera not in depth:
            raise ValueError(
                f"No data set has depth images of a camera '{camera}'; data.depth can "
                f"be {depth}."
            )
    if source.camera_matrices and not any(i.camera_matrices for i in source.indexes):
        raise ValueError(
            "data.camera_matrices is on, but no data set has any: its standardize "
            "function returns them as `camera`."
        )
    for key, least in _LEAST.items():
        if getattr(source, key) < least:
            raise ValueError(
                f"data.{key} must be at least {least}, got {getattr(source, key)}."
            )
    if not 0 <= source.text_dropout < 1:
        raise ValueError(
            f"data.text.dropout is {source.text_dropout}; expected at least 0, below 1."
        )
    for index, size, weight in zip(
        source.indexes, source.sizes("train"), source.weights, strict=True
    ):
        if not size:
            raise ValueError(
                f"Data set '{index.spec.name}' at {index.path} has no steps in its "
                f"split 'train'; its splits are {list(index.split_names)}."
            )
        if weight < 0:
            raise ValueError(
                f"Data set '{index.spec.name}' has weight {weight}; "
                "weights must not be negative."
            )
    for index, statistics in zip(source.indexes, source.statistics, strict=True):
        for key, kind in source.normalization.items():
            # Refuses statistics that lack what the kind needs.
            normalize(getattr(index, key)[:1], statistics[key], kind)
    _ = source.instructions  # refuses an instruction that is too long


def _open_indexes(datasets: Sequence[Mapping[str, Any]]) -> list[Index]:
    return [open_index(d["path"], resolve_spec(d["spec"])) for d in datasets]


def _skips(
    datasets: Sequence[Mapping[str, Any]], indexes: Sequence[Index]
) -> tuple[int, ...]:
    """Per data set: recorded steps per step of the policy."""
    return tuple(
        choose_skip(dataset, index.spec.control_hz, f"data.datasets[{number}]")
        for number, (dataset, index) in enumerate(zip(datasets, indexes, strict=True))
    )


def _weight(dataset: Mapping[str, Any], index: Index) -> float:
    """Share of a data set in the mixture, in any unit."""
    weight = float(dataset.get("weight", 1.0))
    if dataset.get("per_step", False):
        weight *= split_episodes(index, "train").num_samples
    return weight
