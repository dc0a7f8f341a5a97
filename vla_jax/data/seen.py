"""How much of each data set a run has seen: counted, not recorded.

Within a data set the sampler goes through a new permutation in every epoch, so what has
been seen follows from the number of samples alone, exactly.
"""

from collections.abc import Sequence
from typing import NamedTuple

from vla_jax.data.sampler import dealt
from vla_jax.data.source import Source
from vla_jax.data.stream_source import StreamSource

_FEW = 5  # data sets that a line of the terminal names one by one


class Seen(NamedTuple):
    """What a run has seen of a data set.

    Attributes:
        name: of the data set; numbered when two have the same.
        samples: drawn so far, over all hosts.
        fraction: share of the training windows that have been drawn at least once.
        epochs: samples drawn over training windows.
    """

    name: str
    samples: int
    fraction: float
    epochs: float


def seen_after(source: Source, num_samples: int, num_hosts: int = 1) -> list[Seen]:
    """What the first `num_samples` training samples of a run have shown.

    Exact, except for data that several hosts read in passing (`data.source` "stream" or
    "dlimp"): their parts need not be of one size, and `fraction` then is at most this.

    Args:
        source: what the run trains on.
        num_samples: over all hosts, a multiple of the batch size.
        num_hosts: that share a batch.

    Returns:
        one entry per data set, in the order of `source.indexes`.
    """
    if isinstance(source, StreamSource):  # every host deals out its own share
        samples = num_hosts * dealt(num_samples // num_hosts, source.weights)
    else:
        samples = dealt(num_samples, source.weights)
    names = unique([index.spec.name for index in source.indexes])
    return [
        Seen(name, drawn, min(drawn / size, 1.0), drawn / size)
        for name, drawn, size in zip(
            names, samples.tolist(), source.sizes("train"), strict=True
        )
    ]


def unique(names: Sequence[str]) -> list[str]:
    """Names of which those that came before get a number: a, b, a-2."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        found.append(name if counts[name] == 1 else f"{name}-{counts[name]}")
    return found


def to_row(entries: Sequence[Seen]) -> dict[str, float]:
    """Numbers for the log, by name such as `data/bridge_orig/seen`."""
    row: dict[str, float] = {}
    for entry in entries:
        row[f"data/{entry.name}/samples"] = entry.samples
        row[f"data/{entry.name}/seen"] = entry.fraction
        row[f"data/{entry.name}/epochs"] = entry.epochs
    return row


def to_line(entries: Sequence[Seen]) -> str:
    """One line for the terminal; of many data sets, those seen least and most."""
    entries = sorted(entries, key=lambda entry: entry.epochs)
    if len(entries) <= _FEW:
        return "seen: " + ", ".join(map(_describe, entries))
    return (
        f"seen of {len(entries)} data sets: from {_describe(entries[0])} to "
        f"{_describe(entries[-1])}"
    )


def _describe(entry: Seen) -> str:
    return f"{entry.fraction:.1%} of {entry.name} ({entry.epochs:.3g} epochs)"
