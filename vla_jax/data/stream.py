"""Episodes of a data set one after the other, read by TensorFlow: no index is needed.

The only file of this library that uses TensorFlow, and it does so when an episode is
asked for, not before. TensorFlow reads records (`tf.data`), or parses them as well
(`dlimp`, where it is installed). What a record means is decided by the code that the
index uses, so that both give the same episodes. Nothing is shuffled here: which shards
are open at once and how their episodes alternate is stated by `cycle`, and does not
depend on how many threads or cores there are.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vla_jax.data.build import VALIDATION_SPLITS, plan_shards
from vla_jax.data.features import flatten
from vla_jax.data.remote import file_sizes
from vla_jax.data.rlds import (
    RawEpisode,
    RLDSFolder,
    episode_from_example,
    episode_from_record,
)
from vla_jax.data.standardize import DatasetSpec
from vla_jax.data.stream_damage import OnCorrupt, find_record, sound_records
from vla_jax.data.tfrecord import CorruptRecord, Feature

BACKENDS = ("stream", "dlimp")
_DLIMP = "git+https://github.com/kvablack/dlimp"


@dataclasses.dataclass(frozen=True)
class StreamedEpisode:
    """One episode as it came.

    Attributes:
        number: within the data set, as an index counts.
        payload: the bytes in which `raw` places its images.
        raw: its fields.
    """

    number: int
    payload: memoryview
    raw: RawEpisode


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """What is to be read of one shard.

    Attributes:
        path: of the file.
        split: of tfds.
        start: number of its first episode within that split.
        first: number of its first episode within the data set.
        keep: bool `[num_examples]`, True for the episodes to read.
    """

    path: str
    split: str
    start: int
    first: int
    keep: np.ndarray


def plan_parts(
    folder: RLDSFolder,
    spec: DatasetSpec,
    split: str,
    *,
    host: int = 0,
    num_hosts: int = 1,
) -> list[Part]:
    """Lists what one host reads of a split.

    Hosts take whole shards in turn when there is one for each, so that every byte is
    read by one host alone; otherwise they take single episodes in turn, and each reads
    over those of the others. Their parts are disjoint and together the split.

    Args:
        split: "train" or "val", as an index divides the data set.

    Returns:
        the parts in order; empty when there is nothing for this host.
    """
    parts, first, start, previous = [], 0, 0, None
    validation = [name for name in VALIDATION_SPLITS if name in folder.splits]
    chosen = "train" if split == "train" else (*validation, "val")[0]
    for own, shard, counted, held_out in plan_shards(folder, spec):
        start = start if own == previous else 0
        keep = counted if chosen == own == "train" else ~counted
        if chosen in (own, held_out) and keep.any():
            parts.append(Part(shard.path, own, start, first, keep))
        first, start, previous = first + len(counted), start + len(counted), own
    if len(parts) >= num_hosts:
        return parts[host::num_hosts]
    taken, before = [], 0
    for part in parts:
        place = before + np.cumsum(part.keep) - 1
        keep = part.keep & (place % num_hosts == host)
        before += int(part.keep.sum())
        if keep.any():
            taken.append(dataclasses.replace(part, keep=keep))
    return taken


def read_episodes(
    folder: RLDSFolder,
    parts: Sequence[Part],
    *,
    backend: str = "stream",
    cycle: int = 4,
    num_threads: int = 1,
    on_corrupt: OnCorrupt | None = None,
) -> Iterator[StreamedEpisode]:
    """Reads parts of a data set: one episode from each of `cycle` of them in turn.

    Of every open part one more episode is read ahead, so at most `2 * cycle + 1`
    encoded episodes are in memory.

    Args:
        folder: the data set.
        parts: in the order in which they are opened.
        backend: "stream" for plain tf.data, or "dlimp".
        cycle: parts that are open at once.
        num_threads: threads that TensorFlow may use for each.
        on_corrupt: told about what cannot be read, which is left out; the episodes
            after it keep their numbers. None raises.

    Raises:
        CorruptRecord: what cannot be read, unless there is `on_corrupt`.
        ImportError: TensorFlow or dlimp is not installed, with the command to do so.
        ValueError: a shard with more episodes than it should have.
    """
    read = {"stream": _read_tfdata, "dlimp": _read_dlimp}[backend]
    pieces = (
        _keep(folder, part, read(folder, part, num_threads), on_corrupt)
        for part in parts
    )
    return _alternate(pieces, cycle)


def _alternate(
    pieces: Iterable[Iterator[StreamedEpisode]], cycle: int
) -> Iterator[StreamedEpisode]:
    """One item of each of the first `cycle` iterators in turn; the next replaces an
    exhausted one."""
    pieces = iter(pieces)
    active = deque(itertools.islice(pieces, cycle))
    while active:
        piece = active.popleft()
        item = next(piece, None)
        if item is None:
            active.extend(itertools.islice(pieces, 1))
            continue
        yield item
        active.append(piece)


def _keep(
    folder: RLDSFolder,
    part: Part,
    records: Iterator[tuple[memoryview, Any]],
    on_corrupt: OnCorrupt | None,
) -> Iterator[StreamedEpisode]:
    """The episodes of a part that are to be read; checks that all of them came."""

    def report(error: CorruptRecord) -> None:
        if on_corrupt is None:
            raise error
        on_corrupt(error)

    failures = _import_tensorflow().errors.OpError
    position = 0
    for position, record in enumerate(
        sound_records(records, part.path, failures, on_corrupt), 1
    ):
        if position > len(part.keep):
            raise ValueError(
                f"{part.path} holds more than the {len(part.keep)} episodes that "
                "dataset_info.json gives it: the two are not of the same data set."
            )
        if isinstance(record, CorruptRecord):
            report(record)
            continue
        offset, payload, example = record
        if not part.keep[position - 1]:
            continue
        try:
            if example is None:
                raw = episode_from_record(payload, folder.features)
            else:
                raw = episode_from_example(payload, example, folder.features)
        except ValueError as error:
            if offset is None:
                offset = find_record(part.path, position)
            report(CorruptRecord(part.path, offset, str(error)))
            continue
        yield StreamedEpisode(part.first + position - 1, payload, raw)
    if position < len(part.keep):
        reason = f"the file ends after {position} of {len(part.keep)} episodes"
        report(CorruptRecord(part.path, file_sizes([part.path])[0], reason))


def _read_tfdata(
    folder: RLDSFolder, part: Part, num_threads: int
) -> Iterator[tuple[memoryview, None]]:
    """Records as they are in the file."""
    del folder
    tf = _import_tensorflow()
    records = tf.data.TFRecordDataset(part.path).prefetch(1)
    records = records.with_options(_options(num_threads))
    for payload in records.as_numpy_iterator():
        yield memoryview(payload), None


def _read_dlimp(
    folder: RLDSFolder, part: Part, num_threads: int
) -> Iterator[tuple[memoryview, dict[str, Feature]]]:
    """Trajectories of dlimp, in the order of the file and with encoded images."""
    _import_tensorflow()
    if importlib.util.find_spec("dlimp") is None:
        raise ImportError(
            "data.source='dlimp' needs dlimp, which is on no package index: "
            f"pip install --no-deps {_DLIMP}. data.source='stream' gives the same "
            "samples without it."
        )
    import dlimp

    # Slices of single shards: dlimp would shuffle or mix them as it likes.
    name = f"{part.split}[{part.start}:{part.start + len(part.keep)}]"
    dataset = dlimp.DLataset.from_rlds(
        _tfds_builder(folder.path), name, shuffle=False, num_parallel_reads=1
    ).with_options(_options(num_threads))
    for trajectory in dataset.iterator(prefetch=1):
        yield _as_example(trajectory)


def _as_example(trajectory: Mapping) -> tuple[memoryview, dict[str, Feature]]:
    """A trajectory of dlimp in the form of a parsed `tf.train.Example`."""
    trajectory = dict(trajectory)
    num_steps = len(trajectory["_frame_index"])
    metadata = flatten(trajectory.pop("traj_metadata"))
    steps = {k: v for k, v in trajectory.items() if not k.startswith("_")}
    fields: dict[str, np.ndarray] = {}
    for key, value in flatten(steps, "steps/").items():
        if hasattr(value, "row_splits"):  # a RaggedTensorValue
            fields[f"{key}/ragged_flat_values"] = value.flat_values
            fields[f"{key}/ragged_row_lengths_0"] = np.diff(value.row_splits)
        else:
            fields[key] = value
    for key, value in metadata.items():
        # dlimp repeats every number of the metadata once per step.
        fields[key] = np.reshape(value, (-1, num_steps))[:, 0]
    payload, example = bytearray(), {}
    for key, value in fields.items():
        value = np.asarray(value).reshape(-1)
        if value.dtype == object:
            spans = np.zeros((len(value), 2), np.int64)
            for row, data in enumerate(value):
                spans[row] = len(payload), len(data)
                payload += data
            example[key] = Feature("bytes", spans)
        elif np.issubdtype(value.dtype, np.floating):
            value = value.astype("<f4")
            packed = len(payload), value.nbytes
            payload += value.tobytes()
            example[key] = Feature("float", value, packed)
        else:
            example[key] = Feature("int64", value.astype(np.int64))
    return memoryview(bytes(payload)), example


@functools.lru_cache(maxsize=64)
def _tfds_builder(path: str):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(path)


def _options(num_threads: int):
    """Options that leave the order to the data alone."""
    tf = _import_tensorflow()
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = max(num_threads, 1)
    return options


@functools.cache
def _import_tensorflow():
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "Reading a data set without an index needs TensorFlow: install the extra "
            "'tf' (pip install 'vla_jax[tf]'), or set data.source='index', which needs "
            "none."
        ) from error
    with contextlib.suppress(RuntimeError):  # already in use by somebody else
        tf.config.set_visible_devices([], "GPU")  # the accelerators belong to JAX
    return tf
