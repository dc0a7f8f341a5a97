"""Indexes one shard: walks its records once and keeps everything but the images.

The result is one `.npz` file, put in place when complete, so that an interrupted build
continues with the next shard.
"""

import dataclasses
import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vla_jax.data.features import FeatureSpec
from vla_jax.data.labels import steps_to_event
from vla_jax.data.read_ahead import AHEAD, ReadAhead
from vla_jax.data.remote import BLOCK, RemoteFile
from vla_jax.data.rlds import RawEpisode, Shard, episode_from_record
from vla_jax.data.standardize import DatasetSpec, Episode, standardize_episode
from vla_jax.data.statistics import Streaming
from vla_jax.data.tfrecord import HEADER, CorruptRecord, iterate_records


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """What one worker needs to index one shard.

    Attributes:
        shard: the file and how many episodes it must hold.
        spec: how to standardize.
        features: of the data set.
        counted: bool `[num_examples]`, True for the episodes that enter the statistics.
        out: the `.npz` file to write.
        skip_corrupt: leave out and count what cannot be read instead of raising.
    """

    shard: Shard
    spec: DatasetSpec
    features: Mapping[str, FeatureSpec]
    counted: np.ndarray
    out: Path
    skip_corrupt: bool


def index_shard(job: ShardJob) -> Path:
    """Indexes one shard into `job.out`, unless an earlier run has done so.

    The file holds, for `e` episodes of `n` steps together: `record [e, 3]` (position in
    the shard, offset, length), `num_episode_steps [e]`, `proprio`, `action`, `pose` and
    `objects` `[n, *]`, `language [n, l]` into the JSON list `languages`,
    `image/<camera>` and `depth/<camera>` `[n, 2]` (offset, length),
    `intrinsics/<camera>` `[n, 9]` and `extrinsics/<camera>` `[n, 16]`,
    `next_event [n]`, `success [e]` (-1 is unknown), the states of the statistics and
    the JSON list `corrupt` of what was left out.

    Raises:
        CorruptRecord: naming shard and offset, unless `job.skip_corrupt`.
        ValueError: when an episode does not fit the spec, naming shard and episode.
    """
    if job.out.exists():
        with np.load(job.out) as done:
            if job.skip_corrupt or not read_json(done["corrupt"]):
                return job.out
    builder = ShardBuilder(job.spec)
    errors: list[CorruptRecord] = []
    path = job.shard.path
    report = errors.append if job.skip_corrupt else None
    view = open_view(path)
    for offset, payload in iterate_records(view, path, report):
        position = builder.num_episodes + len(errors)
        if position >= len(job.counted):
            raise ValueError(
                f"{path} holds more than the {len(job.counted)} episodes that "
                "dataset_info.json gives it: the two are not of the same data set."
            )
        try:
            raw = episode_from_record(payload, job.features)
        except ValueError as error:
            corrupt = CorruptRecord(path, offset - HEADER, str(error))
            if not job.skip_corrupt:
                raise corrupt from error
            errors.append(corrupt)
            continue
        try:
            episode = standardize_episode(job.spec, raw)
            builder.append(raw, episode, bool(job.counted[position]))
        except ValueError as error:
            raise ValueError(
                f"{error} (episode {position} of {path}, at byte {offset - HEADER})"
            ) from error
        except Exception as error:  # of a user's standardize function
            error.add_note(
                f"in episode {position} of {path}, at byte {offset - HEADER}"
            )
            raise
        builder.records.append((position, offset, len(payload)))
    missing = len(job.counted) - builder.num_episodes - len(errors)
    if missing > 0:
        found = len(job.counted) - missing
        corrupt = CorruptRecord(
            path,
            len(view),
            f"the file ends after {found} of {len(job.counted)} episodes",
        )
        if not job.skip_corrupt:
            raise corrupt
        errors.append(corrupt)
    _save(job.out, builder.arrays(errors))
    return job.out


def open_view(path: str, *, ahead: int = AHEAD):
    """The bytes of a file: mapped when it is local, read in parts when it is not.

    Args:
        path: of the file, or its URL.
        ahead: parts of a remote file that are requested before they are needed; 0 for
            a reader that looks at little of the file, remote or not.
    """
    if "://" in path:
        return ReadAhead(RemoteFile(path), part=None if ahead else BLOCK, ahead=ahead)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # cannot be mapped
            return b""
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if ahead and hasattr(mmap, "MADV_SEQUENTIAL"):
        # The disk then reads on while a record is checked, not only when one is asked
        # for: a data set that is not in memory is indexed faster for it.
        view.madvise(mmap.MADV_SEQUENTIAL)
    return view


def read_json(array: np.ndarray):
    """Reads back what `_json` stored as an array of bytes."""
    return json.loads(array.tobytes())


class ShardBuilder:
    """Collects the episodes of one shard."""

    def __init__(self, spec: DatasetSpec):
        self.records: list[tuple[int, int, int]] = []
        self._spec = spec
        self._episodes: list[Episode] = []
        self._spans: dict[str, list[np.ndarray]] = {
            f"{kind}/{camera}": []
            for kind, cameras in (("image", spec.cameras), ("depth", spec.depth))
            for camera in cameras
        }
        self._languages: dict[str, int] = {}
        self._language: list[np.ndarray] = []
        self._statistics: dict[str, Streaming] = {}

    @property
    def num_episodes(self) -> int:
        return len(self._episodes)

    def append(self, raw: RawEpisode, episode: Episode, counted: bool):
        for first in self._episodes[:1]:
            _check_same(first, episode)
        for kind, cameras in (
            ("image", self._spec.cameras),
            ("depth", self._spec.depth),
        ):
            for camera, key in cameras.items():
                spans = raw.images[key][episode.steps]
                self._spans[f"{kind}/{camera}"].append(spans)
        self._language.append(self._language_ids(episode.language, len(episode.steps)))
        if counted:
            for key in ("action", "proprio"):
                values = getattr(episode, key)
                if key not in self._statistics:
                    self._statistics[key] = Streaming(values.shape[1])
                self._statistics[key].update(values)
        self._episodes.append(episode)

    def arrays(self, errors: list[CorruptRecord]) -> dict[str, np.ndarray]:
        arrays = {
            "record": np.array(self.records, np.int64).reshape(-1, 3),
            "languages": _json(list(self._languages)),
            "corrupt": _json([[e.offset, e.reason] for e in errors]),
        }
        if not self._episodes:
            return arrays
        lengths = [len(episode.action) for episode in self._episodes]
        arrays["num_episode_steps"] = np.array(lengths, np.int32)
        for key in ("proprio", "action", "pose"):
            values = [getattr(episode, key) for episode in self._episodes]
            if values[0] is not None:
                arrays[key] = np.concatenate(values)
        if self._episodes[0].objects is not None:
            rows = np.concatenate([episode.objects for episode in self._episodes])
            arrays["objects"] = rows.reshape(len(rows), -1)
        for camera, matrices in self._episodes[0].camera.items():
            for key in matrices:
                values = [episode.camera[camera][key] for episode in self._episodes]
                rows = np.concatenate(values)
                arrays[f"{key}/{camera}"] = rows.reshape(len(rows), -1)
        if self._spec.action[-1] == "gripper":
            arrays["next_event"] = np.concatenate(
                [steps_to_event(episode.action[:, -1]) for episode in self._episodes]
            )
        success = [episode.success for episode in self._episodes]
        arrays["success"] = np.array([-1 if s is None else s for s in success], np.int8)
        # Images are found from the start of the file, whatever record they are in.
        for key, spans in self._spans.items():
            starts = [np.where(s[:, 1:] > 0, [1, 0], 0) for s in spans]
            arrays[key] = np.concatenate(
                [
                    span + start * record[1]
                    for span, start, record in zip(
                        spans, starts, self.records, strict=True
                    )
                ]
            )
        width = max(ids.shape[1] for ids in self._language)
        arrays["language"] = np.concatenate([pad(ids, width) for ids in self._language])
        for key, streaming in self._statistics.items():
            for name, value in streaming.state().items():
                arrays[f"statistics/{key}/{name}"] = value
        return arrays

    def _language_ids(self, language: list[list[str]], num_steps: int) -> np.ndarray:
        """Ids `[T, l]` of the alternatives of every step, -1 where there is none."""
        width = max(1, *(len(texts) for texts in language))
        ids = np.full((len(language), width), -1, np.int32)
        for step, texts in enumerate(language):
            for column, text in enumerate(texts):
                ids[step, column] = self._languages.setdefault(
                    text, len(self._languages)
                )
        return np.broadcast_to(ids, (num_steps, width))


def pad(ids: np.ndarray, width: int) -> np.ndarray:
    """Widens language ids `[n, l]` to `[n, width]` with -1."""
    return np.pad(ids, ((0, 0), (0, width - ids.shape[1])), constant_values=-1)


def _check_same(first: Episode, episode: Episode):
    """All episodes have the same widths; all or none have a pose or a matrix."""
    if first.proprio.shape[1] != episode.proprio.shape[1]:
        raise ValueError(
            f"proprio is {episode.proprio.shape[1]} wide, but "
            f"{first.proprio.shape[1]} in the episodes before"
        )
    if (first.pose is None) != (episode.pose is None):
        raise ValueError("some episodes have a pose and some have none")
    objects, expected = (
        None if e.objects is None else e.objects.shape[1] for e in (episode, first)
    )
    if objects != expected:
        raise ValueError(f"{objects} objects, but {expected} in the episodes before")
    matrices, expected = (
        sorted((camera, key) for camera, keys in e.camera.items() for key in keys)
        for e in (episode, first)
    )
    if matrices != expected:
        raise ValueError(
            f"camera has {matrices}, but {expected} in the episodes before"
        )


def _json(content) -> np.ndarray:
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


def _save(path: Path, arrays: dict[str, np.ndarray]):
    temporary = path.with_suffix(f".{os.getpid()}.writing")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(temporary, path)
