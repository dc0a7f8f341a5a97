"""Data sets that are read in passing: for data that was never indexed.

    data = dict(..., source="stream", stream=dict(shuffle=4096, cycle=4))

`source="dlimp"` reads through dlimp instead, with the same samples. `stream.shuffle` is
the number of steps that are shuffled together, over all data sets; `stream.cycle` the
number of shards per data set that are open at once; `stream.skip_corrupt=True` leaves
out the records that an index with `skip_corrupt` leaves out, and says which.

The order. Every epoch opens the shards of a data set in a new order and takes their
episodes in turn. As many episodes as make up a data set's share of `shuffle` are one
window, whose steps come in random order before the next window begins. All of it is a
function of the seed, the data and these two numbers.

Memory. The window in use, the next one, and between the two for a moment a third:
encoded records of at most `3 * shuffle` steps and three episodes per data set, besides
`2 * cycle + 1` episodes per data set that are being read.

Normalization needs statistics of the whole data set. They come from the file (or the
index) that `statistics` of a data set names, from its index if there is one, or else
from one pass over the data, which is then kept beside the place of the index.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vla_jax.data.build import plan_shards
from vla_jax.data.rlds import RLDSFolder, open_rlds
from vla_jax.data.sampler import hash_numbers, permute
from vla_jax.data.source import Episodes, Source
from vla_jax.data.standardize import DatasetSpec, resolve_spec
from vla_jax.data.statistics import Statistics
from vla_jax.data.stream import BACKENDS, Part, StreamedEpisode, plan_parts
from vla_jax.data.stream import read_episodes as read
from vla_jax.data.stream_damage import OnCorrupt, Reporter
from vla_jax.data.stream_statistics import check_widths, find_statistics
from vla_jax.data.stream_window import Window
from vla_jax.names import check_keys, did_you_mean

SHUFFLE, CYCLE = 4096, 4

_ORDER = 0x6F7264  # keeps the order of shards apart from that of steps


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """One data set that is read in passing.

    Attributes:
        folder, spec: what it is.
        statistics: of its training split.
        counts: `episodes` by split, and `steps` of "train".
        backend: "stream" or "dlimp".
        shuffle: steps of a window; whole episodes are read until there are so many.
        cycle: shards open at once.
        num_threads: threads that TensorFlow may use.
        on_corrupt: told about what cannot be read; None raises.
    """

    folder: RLDSFolder
    spec: DatasetSpec
    statistics: Mapping[str, Statistics]
    counts: Mapping[str, Mapping[str, int]]
    backend: str
    shuffle: int
    cycle: int
    num_threads: int
    on_corrupt: OnCorrupt | None = None

    def window(self, streamed: Sequence[StreamedEpisode]) -> Window:
        """Some episodes as an index."""
        return Window(self.folder, self.spec, self.statistics, self.counts, streamed)

    def read(self, parts: Sequence[Part]) -> Iterator[StreamedEpisode]:
        """The episodes of parts; see `vla_jax.data.stream.read_episodes`."""
        return read(
            self.folder,
            parts,
            backend=self.backend,
            cycle=self.cycle,
            num_threads=self.num_threads,
            on_corrupt=self.on_corrupt,
        )

    def first_window(self) -> Window:
        """A window of one training episode, for widths and cameras.

        Raises:
            ValueError: no training episode can be read.
        """
        for episode in self.read(self.parts("train", 0, 1)):
            return self.window([episode])
        raise ValueError(
            f"Data set {self.spec.name!r} at {self.folder.path} has no training "
            f"episode that can be read; its splits have {self.counts['episodes']}."
        )

    def parts(self, split: str, host: int, num_hosts: int) -> list[Part]:
        """What a host reads of "train" or "validation"; nothing if there is none.

        Raises:
            ValueError: there are fewer episodes than hosts.
        """
        name = "train" if split == "train" else "val"
        plan = functools.partial(plan_parts, self.folder, self.spec, name)
        total = sum(int(part.keep.sum()) for part in plan())
        if 0 < total < num_hosts:  # found out by every host, not by one alone
            raise ValueError(
                f"Data set {self.spec.name!r} has {total} {split} episodes, fewer than "
                f"the {num_hosts} hosts that are to share them."
            )
        return plan(host=host, num_hosts=num_hosts)

    def windows(
        self, parts: Sequence[Part], *, seed: int, skip: int = 0
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Endless windows and the order of their steps, int64 [n].

        The first `skip` samples are left out: their records are read up to one epoch,
        not standardized and not decoded. Whole epochs are counted, not read.

        Args:
            parts: of this host, at least one.
            seed: of this data set.
        """
        epoch, size = 0, None
        while True:
            if size is not None:
                epoch, skip = epoch + skip // size, skip % size
            order = permute(
                np.arange(len(parts)), len(parts), hash_numbers(seed, _ORDER, epoch)
            )
            size = 0
            for streamed in _group(self.read([parts[i] for i in order]), self.shuffle):
                steps = sum(episode.raw.num_steps for episode in streamed)
                first, size = size, size + steps
                if skip >= steps:
                    skip -= steps
                    continue
                key = hash_numbers(seed, epoch, first)
                yield (
                    self.window(streamed),
                    permute(np.arange(steps), steps, key)[skip:],
                )
                skip = 0
            if not size:
                raise ValueError(
                    f"No episode of data set {self.spec.name!r} at {self.folder.path} "
                    f"can be read by this host: all {len(parts)} of its shards are "
                    "damaged."
                )
            epoch += 1


@dataclasses.dataclass(frozen=True, eq=False)
class StreamSource(Source):
    """A source of data sets that are read in passing.

    Attributes:
        indexes: per data set a window of one episode, for widths and cameras.
        streams: the data sets.
    """

    streams: tuple[Stream, ...] = ()

    @functools.cached_property
    def instructions(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        return tuple(
            index.tokens(self.tokenizer, self.text_length, self.truncate)
            for index in self.indexes
        )

    def __reduce__(self):
        # The windows are made anew from one episode each: they hold open records.
        if len(self.indexes) != len(self.streams):
            raise TypeError(
                "The source of one batch cannot be pickled; pickle the one that "
                "`open_source` returned."
            )
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del fields["indexes"]
        return _restore_source, (fields,)

    def with_windows(self, windows: Sequence[Window]) -> "StreamSource":
        """This source with windows after its data sets, to make a batch of them."""
        return dataclasses.replace(self, indexes=(*self.indexes, *windows))

    def episodes(self, split: str) -> tuple[Episodes, ...]:
        """The episodes of each window, whatever the split."""
        return tuple(index.episodes for index in self.indexes)

    def sizes(self, split: str) -> tuple[int, ...]:
        """Per data set: number of samples in split "train", the only one counted."""
        if split != "train":
            raise ValueError(
                f"The size of split {split!r} is not known before it is read; "
                "data.source='index' knows it."
            )
        return tuple(index.counts["steps"]["train"] for index in self.indexes)


def open_streams(
    config: Mapping[str, Any],
) -> tuple[functools.partial, list[Window]]:
    """Opens the data sets of a config for `vla_jax.data.source.open_source`.

    Returns:
        the class of the source, to be called with its fields, and its indexes.

    Raises:
        ImportError: TensorFlow or dlimp is not installed.
        ValueError: an unknown source, or a key or number that cannot be.
    """
    backend, options = config["source"], config.get("stream", {})
    if backend not in BACKENDS:
        known = ("index", *BACKENDS)
        raise ValueError(
            f"Unknown data.source {backend!r}; {did_you_mean(backend, known)}"
        )
    check_keys(options, ("shuffle", "cycle", "skip_corrupt"), "data.stream")
    skip_corrupt = options.get("skip_corrupt", False)
    if not isinstance(skip_corrupt, bool):
        raise ValueError(
            f"data.stream.skip_corrupt is {skip_corrupt!r}; expected True or False."
        )
    numbers = {"shuffle": SHUFFLE, "cycle": CYCLE, **options}
    for key, number in numbers.items():
        if key != "skip_corrupt" and (not isinstance(number, int) or number < 1):
            raise ValueError(
                f"data.stream.{key} is {number!r}; give a whole number of at least 1."
            )
    datasets = config["datasets"]
    weights = [float(dataset.get("weight", 1.0)) for dataset in datasets]
    streams, windows = [], []
    for dataset, weight in zip(datasets, weights, strict=True):
        folder, spec = open_rlds(dataset["path"]), resolve_spec(dataset["spec"])
        stream = Stream(
            folder=folder,
            spec=spec,
            statistics={},
            counts={"episodes": _count_episodes(folder, spec), "steps": {}},
            backend=backend,
            shuffle=max(round(numbers["shuffle"] * weight / (sum(weights) or 1)), 1),
            cycle=numbers["cycle"],
            num_threads=max(config["num_threads"], 1),
            on_corrupt=Reporter() if skip_corrupt else None,
        )
        if not stream.counts["episodes"].get("train"):
            raise ValueError(
                f"Data set {spec.name!r} at {folder.path} has no training episodes; "
                f"its splits have {stream.counts['episodes']}."
            )
        statistics, readable = find_statistics(stream, dataset.get("statistics", ""))
        episodes = dict(stream.counts["episodes"])
        if skip_corrupt and readable is not None:
            episodes["train"] = readable
        steps = {"train": statistics["action"].count}
        counts = {"episodes": episodes, "steps": steps}
        stream = dataclasses.replace(stream, statistics=statistics, counts=counts)
        windows.append(stream.first_window())
        check_widths(windows[-1], dataset.get("statistics", ""))
        streams.append(stream)
    return functools.partial(StreamSource, streams=tuple(streams)), windows


def _restore_source(fields: dict) -> StreamSource:
    indexes = tuple(stream.first_window() for stream in fields["streams"])
    return StreamSource(indexes=indexes, **fields)


def _count_episodes(folder: RLDSFolder, spec: DatasetSpec) -> dict[str, int]:
    """Episodes by split, as an index divides them."""
    counts: dict[str, int] = {}
    for split, _, counted, held_out in plan_shards(folder, spec):
        kept = int(counted.sum())
        for name, count in ((split, kept), (held_out, len(counted) - kept)):
            if count:
                counts[name] = counts.get(name, 0) + count
    return counts


def _group(
    episodes: Iterator[StreamedEpisode], steps: int
) -> Iterator[list[StreamedEpisode]]:
    """Consecutive episodes until they have `steps` steps together."""
    group, total = [], 0
    for episode in episodes:
        group.append(episode)
        total += episode.raw.num_steps
        if total >= steps:
            yield group
            group, total = [], 0
    if group:
        yield group
