"""Which statistics normalize which data set of a mixture."""

from collections.abc import Mapping, Sequence

from vla_jax.data.index import Index
from vla_jax.data.statistics import Statistics
from vla_jax.data.statistics_formats import read_statistics
from vla_jax.data.statistics_merge import merge_statistics


def choose_statistics(
    indexes: Sequence[Index], files: Sequence[str], weights: Sequence[float] | None
) -> tuple[Mapping[str, Statistics], ...]:
    """Per data set: statistics of "action" and "proprio".

    Args:
        indexes: the data sets.
        files: per data set a file of octo, openpi or LeRobot, or "" for its own.
        weights: of the mixture, to normalize every data set by the statistics of the
            mixture; None for each by those of its own.

    Raises:
        ValueError: when a file does not fit its data set, or the statistics of data
            sets of different widths are to be shared.
    """
    parts = []
    for index, file in zip(indexes, files, strict=True):
        if file:
            parts.append(_read(index, file))
        else:
            parts.append(index.statistics if weights is None else index.streaming)
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


def _read(index: Index, file: str) -> dict[str, Statistics]:
    """Statistics from a file, checked against the data set they are to normalize."""
    statistics = read_statistics(file)
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
