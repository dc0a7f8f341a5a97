"""Batches of data sets that are read in passing; see `vla_jax.data.stream_source`.

A batch is made by the function that makes those of an index. Which data set a sample
comes from is the same function of its number as there; within a data set samples come
in the order of its windows. The state is one integer again, but to start at a later
batch the samples before it are skipped, which reads (and does not decode) up to one
epoch of records.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from vla_jax.data.batch import make_batch
from vla_jax.data.memory import Shelf
from vla_jax.data.sampler import choose, dealt, hash_numbers, host_share
from vla_jax.data.stream_source import StreamSource
from vla_jax.data.stream_window import Window


class StreamIterator:
    """Iterator of numpy batches; a context manager that ends its threads.

    Attributes:
        step: number of the batch that `next` returns; with it as `start_step`, another
            iterator goes on there.
    """

    def __init__(
        self,
        source: StreamSource,
        split: str,
        *,
        seed: int,
        start_step: int = 0,
        num_batches: int | None = None,
        host: int = 0,
        num_hosts: int = 1,
    ):
        self.step = start_step
        self._source, self._split, self._seed = source, split, seed
        self._stop = num_batches
        self._share = host_share(source.batch_size, host, num_hosts)
        self._made = self._asked = start_step
        parts = [stream.parts(split, host, num_hosts) for stream in source.streams]
        self._weights = [
            weight if part else 0.0
            for weight, part in zip(source.weights, parts, strict=True)
        ]
        if not any(self._weights):
            raise ValueError(
                f"No data set of the mixture has {split} episodes with a weight: the "
                f"weights are {source.weights}."
            )
        self._reader = ThreadPoolExecutor(1, "stream-read")
        self._maker = ThreadPoolExecutor(1, "stream-batch") if source.prefetch else None
        self._decoder = None
        if source.num_threads:
            self._decoder = ThreadPoolExecutor(source.num_threads, "decode")
        skip = dealt(start_step * self._share, self._weights).tolist()
        self._cursors = {
            number: _Cursor(
                stream.windows(
                    parts[number],
                    seed=int(hash_numbers(seed, number)[0]),
                    skip=skip[number],
                ),
                self._reader,
            )
            for number, stream in enumerate(source.streams)
            if self._weights[number]
        }
        self._shelf = Shelf()
        self._pending: deque[Future] = deque()
        self._closed = self._exhausted = False

    def __iter__(self) -> "StreamIterator":
        return self

    def __next__(self) -> dict:
        if self._exhausted:
            raise StopIteration
        if self._closed:
            raise ValueError("This iterator of batches is closed.")
        if self._stop is not None and self.step >= self._stop:
            self._exhausted = True
            self.close()
            raise StopIteration
        try:
            batch = self._next()
        except BaseException:
            self.close()
            raise
        self.step += 1
        return batch

    def close(self) -> None:
        """Ends the threads; what was read ahead is thrown away."""
        self._closed = True
        for pool in (self._maker, self._decoder, self._reader):
            if pool:
                pool.shutdown(cancel_futures=True)
        for cursor in self._cursors.values():
            cursor.close()

    def __enter__(self) -> "StreamIterator":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _next(self) -> dict:
        """The next batch, made now or ahead of time by the one thread that does so."""
        if self._maker is None:
            return self._make()
        while len(self._pending) <= self._source.prefetch:
            if self._asked == self._stop:
                break
            self._pending.append(self._maker.submit(self._make))
            self._asked += 1
        return self._pending.popleft().result()

    def _make(self) -> dict:
        """Makes batch number `self._made`; called by one thread only."""
        step, self._made = self._made, self._made + 1
        dataset, _ = choose(step * self._share + np.arange(self._share), self._weights)
        entry, sample = np.zeros_like(dataset), np.zeros(len(dataset), np.int64)
        windows: list[Window] = []
        for number in np.unique(dataset):
            rows = np.flatnonzero(dataset == number)
            for window, samples in self._cursors[int(number)].take(len(rows)):
                entry[rows[: len(samples)]] = len(self._source.indexes) + len(windows)
                sample[rows[: len(samples)]] = samples
                rows = rows[len(samples) :]
                windows.append(window)
        batch = make_batch(
            self._source.with_windows(windows),
            entry,
            sample,
            split=self._split,
            seed=int(hash_numbers(self._seed, step)[0]),
            run=self._decoder.map if self._decoder else map,
            empty=self._shelf.empty,
        )
        return batch | {"dataset": dataset}


def stream_batches(
    source: StreamSource,
    *,
    seed: int,
    start_step: int = 0,
    host: int = 0,
    num_hosts: int = 1,
) -> StreamIterator:
    """Iterates without end over training batches, from number `start_step` on.

    Args:
      source: what `open_source` gives for `data.source` "stream" or "dlimp".
      seed: seed of the run.
      start_step: number of the first batch. The batches are those of a run from the
        start; getting there reads the records before it, at most one epoch of them.
      host: number of this host.
      num_hosts: number of hosts. Every host reads a part of the data sets of its own,
        so another number of hosts is another order.

    Returns:
      iterator of the batches of `make_batch`, of `batch_size / num_hosts` samples.

    Raises:
      ValueError: a batch that hosts cannot share, or fewer episodes than hosts.
    """
    return StreamIterator(
        source,
        "train",
        seed=seed,
        start_step=start_step,
        host=host,
        num_hosts=num_hosts,
    )


class _Cursor:
    """Goes through the windows of one data set, always with the next one in the make.

    Args:
        windows: endless, of windows and the order of their steps.
        reader: of one thread, in which windows are made.
    """

    def __init__(
        self, windows: Iterator[tuple[Window, np.ndarray]], reader: ThreadPoolExecutor
    ):
        self._windows, self._reader = windows, reader
        self._ahead: Future | None = None
        self._window: Window | None = None
        self._order = np.zeros(0, np.int64)

    def take(self, count: int) -> list[tuple[Window, np.ndarray]]:
        """The next `count` samples, by window."""
        taken = []
        while count:
            if not len(self._order):
                ahead = self._ahead or self._reader.submit(next, self._windows)
                self._window = None  # makes room for the one after the next
                self._window, self._order = ahead.result()
                self._ahead = self._reader.submit(next, self._windows)
            samples, self._order = self._order[:count], self._order[count:]
            taken.append((self._window, samples))
            count -= len(samples)
        return taken

    def close(self) -> None:
        self._windows.close()
