"""Batches, made ahead of time: Grain runs the loading, JAX places it on the devices.

Element `i` of a Grain data set is batch `i`, a pure function of seed and `i`. So the
state of an iterator is one integer, and starting at any batch costs nothing.
"""

import functools
import queue
import sys
import threading
from collections.abc import Callable, Iterator

import grain
import jax
import numpy as np

from vla_jax.data.batch import make_batch
from vla_jax.data.memory import Shelf
from vla_jax.data.sampler import hash_numbers, sample
from vla_jax.data.source import Source
from vla_jax.data.stream_batches import StreamIterator, stream_batches
from vla_jax.data.stream_source import StreamSource
from vla_jax.types import Batch, batch_from_dict

_BLOCK = 64  # batches whose samples are drawn in one go
_VALIDATION = 0x76616C  # keeps the order of validation apart from that of training


class BatchIterator:
    """Iterator of numpy batches; a context manager that ends its threads.

    Attributes:
        step: number of the batch that `next` returns, the whole state of the iterator.
    """

    def __init__(
        self, batches: "_Batches", start_step: int, num_threads: int, prefetch: int
    ):
        # A thread makes a whole batch. Sharing out the images of one batch costs the
        # threads a tenth of their time and more in waiting for each other.
        options = grain.ReadOptions(
            num_threads=num_threads, prefetch_buffer_size=max(prefetch, num_threads)
        )
        dataset = grain.MapDataset.source(batches).to_iter_dataset(options)
        self._iterator = iter(dataset)
        self._iterator.set_state({"next_index": start_step})
        self._exhausted = False

    @property
    def step(self) -> int:
        return self._iterator.get_state()["next_index"]

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> dict:
        if self._exhausted:
            raise StopIteration
        try:
            return next(self._iterator)
        except StopIteration:
            self._exhausted = True
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the threads; batches made ahead are thrown away."""
        self._iterator.close()

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def train_batches(
    source: Source,
    *,
    seed: int,
    start_step: int = 0,
    host: int = 0,
    num_hosts: int = 1,
) -> BatchIterator | StreamIterator:
    """Iterates without end over training batches, from number `start_step` on.

    Args:
      source: what to train on.
      seed: seed of the run.
      start_step: number of the first batch, for example the restored step.
      host: number of this host, for example `jax.process_index()`.
      num_hosts: number of hosts; each loads its own part of every batch.

    Returns:
      iterator of the batches of `make_batch`, of `batch_size / num_hosts` samples.
    """
    if isinstance(source, StreamSource):
        hosts = dict(host=host, num_hosts=num_hosts)
        return stream_batches(source, seed=seed, start_step=start_step, **hosts)
    batches = _Batches(source, "train", seed, sys.maxsize, host, num_hosts)
    return BatchIterator(batches, start_step, source.num_threads, source.prefetch)


def validation_batches(
    source: Source,
    *,
    seed: int,
    num_batches: int,
    host: int = 0,
    num_hosts: int = 1,
) -> BatchIterator | StreamIterator:
    """Iterates over `num_batches` batches of held-out episodes, the same every time.

    Data sets without held-out episodes are left out; arguments as `train_batches`.

    Raises:
      ValueError: no data set has held-out episodes.
    """
    seed ^= _VALIDATION
    if isinstance(source, StreamSource):
        hosts = dict(host=host, num_hosts=num_hosts)
        return StreamIterator(
            source, "validation", seed=seed, num_batches=num_batches, **hosts
        )
    batches = _Batches(source, "validation", seed, num_batches, host, num_hosts)
    return BatchIterator(batches, 0, source.num_threads, source.prefetch)


class DeviceIterator:
    """Iterator of batches on devices, which a thread keeps ahead of the training.

    Attributes:
        step: number of the batch that `next` returns.
    """

    def __init__(
        self, batches: Iterator[dict], place: Callable[[dict], Batch], prefetch: int
    ):
        self.step = getattr(batches, "step", 0)
        self._batches = batches
        self._place = place
        self._ready: queue.Queue = queue.Queue(maxsize=max(prefetch, 1))
        self._error: BaseException | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="to-device")
        self._thread.start()

    def __iter__(self) -> "DeviceIterator":
        return self

    def __next__(self) -> Batch:
        if self._closed.is_set():
            raise ValueError("This iterator of batches is closed.")
        if self._error is None:
            batch, self._error = self._ready.get()
        if self._error is not None:
            raise self._error
        self.step += 1
        return batch

    def close(self) -> None:
        """Ends the thread and closes the batches below."""
        self._closed.set()
        self._thread.join()
        if hasattr(self._batches, "close"):
            self._batches.close()

    def __enter__(self) -> "DeviceIterator":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            for batch in self._batches:
                if not self._put((self._place(batch), None)):
                    return
            self._put((None, StopIteration()))
        except BaseException as error:  # belongs to whoever asks for this batch
            self._put((None, error))

    def _put(self, item: tuple[Batch | None, BaseException | None]) -> bool:
        """Waits for room; False when nobody will ask any more."""
        while not self._closed.is_set() and threading.main_thread().is_alive():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


def to_device(
    batches: Iterator[dict],
    sharding: jax.sharding.Sharding,
    prefetch: int = 2,
) -> DeviceIterator:
    """Places numpy batches on devices, `prefetch` batches ahead.

    Args:
      batches: this host's part of every batch.
      sharding: of every array, for example the first axis over "data".
      prefetch: batches that lie ready on the devices.

    Returns:
      iterator of global batches; closing it closes `batches` as well.
    """

    def place_array(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, array)

    def place(batch: dict) -> Batch:
        return jax.tree.map(place_array, batch_from_dict(batch))

    return DeviceIterator(batches, place, prefetch)


class _Batches:
    """Random access to the batches of one host, for Grain; owns the decoding threads.

    Drawing samples costs about the same for one batch as for many, so they are drawn
    for a block of batches and kept until a later block is asked for.
    """

    def __init__(
        self,
        source: Source,
        split: str,
        seed: int,
        num_batches: int,
        host: int,
        num_hosts: int,
    ):
        self._source, self._split, self._seed = source, split, seed
        self._num_batches = num_batches
        self._draw = functools.lru_cache(maxsize=2)(
            functools.partial(_draw_block, source, split, seed, host, num_hosts)
        )
        self._draw(0)  # what is wrong with the mixture shows here, not in a thread
        self._shelf = Shelf()

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, step: int) -> dict:
        dataset, number = self._draw(step // _BLOCK)
        return make_batch(
            self._source,
            dataset[step % _BLOCK],
            number[step % _BLOCK],
            split=self._split,
            seed=int(hash_numbers(self._seed, step)[0]),
            empty=self._shelf.empty,
        )


def _draw_block(
    source: Source, split: str, seed: int, host: int, num_hosts: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """Data sets and samples, [_BLOCK, b], of the batches of one block."""
    sizes = source.sizes(split)
    weights = [
        w if size else 0.0 for w, size in zip(source.weights, sizes, strict=True)
    ]
    if not any(weights):
        raise ValueError(
            f"No data set of the mixture has {split} episodes: their sizes are {sizes} "
            f"and their weights {source.weights}."
        )
    return sample(
        block * _BLOCK + np.arange(_BLOCK),
        seed=seed,
        batch_size=source.batch_size,
        sizes=sizes,
        weights=weights,
        host=host,
        num_hosts=num_hosts,
    )
