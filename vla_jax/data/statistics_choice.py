"""Which statistics normalize which data set of a mixture."""

from collections.abc import Mapping, Sequence

import numpy as np

from vla_jax.data.episodes import split_episodes
from vla_jax.data.index import Index
from vla_jax.data.statistics import Statistics, Streaming
from vla_jax.data.statistics_formats import read_statistics
from vla_jax.data.statistics_merge import merge_statistics
from vla_jax.data.windows import merge_actions, window_and_chunk

_BLOCK = 65536  # steps at a time


def choose_statistics(
    indexes: Sequence[Index],
    files: Sequence[str],
    skips: Sequence[int],
    weights: Sequence[float] | None,
) -> tuple[Mapping[str, Statistics], ...]:
    """Per data set: statistics of "action" and "proprio".

    Args:
        indexes: the data sets.
        files: per data set a file of octo, openpi or LeRobot, or "" for its own; a
            data set of an octo file of several is named by `file.json#name`.
        skips: recorded steps per step of the policy; a file is taken as it is.
        weights: of the mixture, to normalize every data set by the statistics of the
            mixture; None for each by those of its own.

    Raises:
        ValueError: when a file does not fit its data set, or the statistics of data
            sets of different widths are to be shared.
    """
    parts = []
    for index, file, skip in zip(indexes, files, skips, strict=True):
        if file:
            parts.append(_read(index, file))
            continue
        own = dict(index.statistics if weights is None else index.streaming)
        if skip > 1:
            merged = stream_merged_actions(index, skip)
            own["action"] = merged.finish() if weights is None else merged
        parts.append(own)
    if weights is None:
        return tuple(parts)
    shared = {}
    for key in ("action", "proprio"):
        try:
            shared[key] = merge_statistics([part[key] for part in parts], weights)
        except ValueError as error:
            names = [index.spec.name for index in indexes]
            raise ValueError(
                f"data.share_statistics cannot merge the {key} of {names}: {error}"
            ) from error
    return (shared,) * len(parts)


def stream_merged_actions(index: Index, skip: int) -> Streaming:
    """Statistics of the actions of training episodes, `skip` of them made one.

    Relative actions add up, so theirs differ from those of the recorded actions.
    """
    relative = np.array([kind == "relative" for kind in index.spec.action])
    episodes = split_episodes(index, "train")
    streaming = Streaming(len(relative))
    for start in range(0, episodes.num_samples, _BLOCK):
        stop = min(start + _BLOCK, episodes.num_samples)
        place = episodes.locate(np.arange(start, stop))
        _, _, future, real = window_and_chunk(
            place.step, place.length, window=1, chunk=1, skip=skip
        )
        action = index.action.take(place.first_step[:, None] + future, axis=0)
        np.copyto(action, 0.0, where=~real[:, :, None] & relative)
        streaming.update(merge_actions(action, real, relative, skip)[0][:, 0])
    return streaming


def _read(index: Index, file: str) -> dict[str, Statistics]:
    """Statistics from a file, checked against the data set they are to normalize."""
    path, _, dataset = file.partition("#")
    statistics = read_statistics(path, dataset=dataset or None)
    for key in ("action", "proprio"):
        expected = getattr(index, key).shape[1]
        if key not in statistics:
            raise ValueError(
                f"{file} has no statistics of {key!r}, which data set "
                f"{index.spec.name!r} is normalized by."
            )
        width = len(statistics[key].mean)
        if width != expected:
            raise ValueError(
                f"The {key} statistics in {file} have {width} dimensions; those of "
                f"data set {index.spec.name!r} have {expected}."
            )
    return statistics
