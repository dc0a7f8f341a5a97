"""The index of a data set: standard arrays, and where in the shards each image is.

Built once per data set (`vla_jax.data.build`), then opened by every process that reads
it. Arrays are memory-mapped, images are read from the original TFRecord files.
"""

import functools
import hashlib
import io
import json
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vla_jax.data.build import (
    VALIDATION_SPLITS,
    build_at,
    fingerprint,
    remove_staging,
    why_rebuild,
)
from vla_jax.data.mapped import map_array
from vla_jax.data.open_files import OPEN_FILES, OWNERS, LocalFile
from vla_jax.data.remote import RemoteFile, open_path
from vla_jax.data.rlds import RLDSFolder, open_rlds
from vla_jax.data.standardize import DatasetSpec, resolve_spec
from vla_jax.data.statistics import Statistics, Streaming
from vla_jax.names import did_you_mean


class Index:
    """An opened index. Cheap to pickle: the copy opens its files again.

    Of N steps in E episodes; steps are numbered through, episode after episode.

    Attributes:
        spec: the data set's spec.
        path: folder of the index.
        data_path: version folder of the data set.
        num_steps, num_episodes: N and E.
        cameras: standard names.
        first_step: int64 `[E]`, number of each episode's first step.
        num_episode_steps: int32 `[E]`.
        split: int8 `[E]` into `split_names`.
        shard: int32 `[E]` into `shards`.
        record: int64 `[E, 2]`, offset and length of the episode's record.
        episode: int32 `[N]`, the episode of each step.
        proprio, action: float32 `[N, *]`.
        pose: float32 `[N, 7]`, or None.
        objects: float32 `[N, o * 7]`, poses of things on the table, or None.
        next_event: int32 `[N]`, steps to the next gripper event, -1 for none; None
            without a gripper. See `vla_jax.data.labels.steps_to_event`.
        camera_matrices: camera to `intrinsics`, float32 `[N, 3, 3]`, and `extrinsics`,
            float32 `[N, 4, 4]`, as far as the data set has them.
        success: int8 `[E]`, 1 yes, 0 no, -1 unknown; None if all are unknown.
        language: int32 `[N, L]` into `languages`, -1 for none; one column per
            alternative.
        languages: all instructions.
        image_spans, depth_spans: camera to int64 `[N, 3]` of shard, offset and length;
            length 0 where a step has no image.
        image_features, depth_features: camera to a dict with `feature`, `dtype`,
            `shape` and `encoding` as the data set states them.
        shards: file names.
        statistics: of "action" and "proprio", over the training split.
        counts: `episodes` and `steps` by split, and corrupt episodes `skipped`.
    """

    def __init__(self, path, data_path, spec: DatasetSpec):
        self.path, self.data_path, self.spec = Path(path), str(data_path), spec
        content = json.loads((self.path / "index.json").read_text())
        self.languages = json.loads((self.path / "languages.json").read_text())
        self._load(content)
        self._owner = next(OWNERS)
        weakref.finalize(self, OPEN_FILES.forget, self._owner).atexit = False

    def _load(self, content: Mapping) -> None:
        """Sets every attribute that comes from `index.json` or from an array."""
        self.num_steps: int = content["num_steps"]
        self.num_episodes: int = content["num_episodes"]
        self.split_names: list[str] = content["split_names"]
        self.shards: list[str] = content["shards"]
        self.counts: dict = content["counts"]
        self.corrupt: list[str] = content["corrupt"]
        self.image_features: dict[str, dict] = content["image"]
        self.depth_features: dict[str, dict] = content["depth"]
        self.cameras = tuple(self.spec.cameras)
        self.statistics = {
            key: Statistics.from_json(value)
            for key, value in content["statistics"].items()
        }
        self.first_step = self._array("first_step")
        self.num_episode_steps = self._array("num_episode_steps")
        self.split = self._array("split")
        self.shard = self._array("shard")
        self.record = self._array("record")
        self.episode = self._array("episode")
        self.proprio = self._array("proprio")
        self.action = self._array("action")
        self.pose = self._optional("pose")
        self.objects = self._optional("objects")
        self.next_event = self._optional("next_event")
        self.success = self._optional("success")
        self.camera_matrices = self._camera_matrices()
        self.language = self._array("language")
        self.image_spans = {c: self._array(f"image_{c}") for c in self.spec.cameras}
        self.depth_spans = {c: self._array(f"depth_{c}") for c in self.spec.depth}
        self._image_sizes: dict[str, tuple[int, int]] = {}

    @functools.cached_property
    def streaming(self) -> dict[str, Streaming]:
        """The sketches behind `statistics`, from which mixtures are merged."""
        with np.load(self.path / "statistics.npz") as file:
            states: dict[str, dict[str, np.ndarray]] = {}
            for name in file.files:
                key, _, part = name.partition("/")
                states.setdefault(key, {})[part] = file[name]
        return {key: Streaming.from_state(state) for key, state in states.items()}

    def __reduce__(self):
        return Index, (self.path, self.data_path, self.spec)

    @property
    def is_remote(self) -> bool:
        """Whether reading an image is worth the preparation of `read_spans`."""
        return "://" in self.data_path

    @property
    def validation_split(self) -> str | None:
        """The first of "val", "validation" and "test" that the data set has."""
        present = [name for name in VALIDATION_SPLITS if name in self.split_names]
        return present[0] if present else None

    def split_episodes(self, split: str) -> np.ndarray:
        """Episodes of a split, int32 `[e]`.

        "val" also finds a split that the data set calls "validation" or "test".

        Raises:
            ValueError: for an unknown split, listing those there are.
        """
        name = self.validation_split if split == "val" else split
        if name not in self.split_names:
            raise ValueError(
                f"Data set {self.spec.name!r} has no split {split!r}; "
                f"{did_you_mean(split, self.split_names)}"
            )
        chosen = self.split == self.split_names.index(name)
        return np.flatnonzero(chosen).astype(np.int32)

    def read_image(self, camera: str, step: int) -> bytes:
        """The encoded image of a step; empty where it has none.

        Raises:
            ValueError: for an unknown camera, or when the shard has become shorter.
        """
        return self._read(self.image_spans, camera, step)

    def read_depth(self, camera: str, step: int) -> bytes:
        """The encoded depth image of a step, as `read_image`."""
        return self._read(self.depth_spans, camera, step)

    def read_span(self, camera: str, step: int, span: Sequence[int]) -> bytes:
        """The bytes of `span`: shard, offset and length as in `image_spans`.

        Raises:
            ValueError: when the shard has become shorter, naming `camera` and `step`.
        """
        shard, offset, length = span
        data = self._file(shard).read(offset, length)
        if len(data) != length:
            raise ValueError(
                f"{self.shards[shard]} of {self.data_path} ends before byte "
                f"{offset + length}, where the {camera!r} image of step {step} should "
                "be: the file has changed since it was indexed."
            )
        return data

    def read_spans(self, spans: np.ndarray) -> list[bytes]:
        """The bytes of `spans`, int64 [n, 3], of a remote data set in few requests.

        Raises:
            ValueError: when a shard has become shorter.
        """
        found = [b""] * len(spans)
        for shard in np.unique(spans[:, 0]).tolist():
            rows = np.flatnonzero(spans[:, 0] == shard)
            pieces = self._file(shard).read_many(spans[rows, 1:].tolist())
            for row, data in zip(rows.tolist(), pieces, strict=True):
                if len(data) != spans[row, 2]:
                    raise ValueError(
                        f"{self.shards[shard]} of {self.data_path} ends before byte "
                        f"{spans[row, 1:].sum()}, where an image should be: the file "
                        "has changed since it was indexed."
                    )
                found[row] = data
        return found

    def image_size(self, camera: str) -> tuple[int, int]:
        """Height and width of a camera's images in pixels.

        As the data set states them; where it does not, those of the first image.

        Raises:
            ValueError: when there is no image to tell.
        """
        if camera not in self._image_sizes:
            kind = "image" if camera in self.image_spans else "depth"
            stated = getattr(self, f"{kind}_features")[camera]["shape"][:2]
            size = tuple(stated) if min(stated) > 0 else self._first_size(kind, camera)
            self._image_sizes[camera] = size
        return self._image_sizes[camera]

    def instructions(self, step: int) -> list[str]:
        """The alternatives of a step's instruction."""
        return [self.languages[i] for i in self.language[step] if i >= 0]

    def _read(self, spans: Mapping[str, np.ndarray], camera: str, step: int) -> bytes:
        if camera not in spans:
            raise ValueError(
                f"Data set {self.spec.name!r} has no camera {camera!r}; "
                f"{did_you_mean(camera, spans)}"
            )
        span = spans[camera][step].tolist()
        return self.read_span(camera, step, span) if span[2] else b""

    def _file(self, shard: int) -> LocalFile | RemoteFile:
        return OPEN_FILES.get(self._owner, shard, self._open)

    def _open(self, shard: int) -> LocalFile | RemoteFile:
        path = f"{self.data_path}/{self.shards[shard]}"
        return RemoteFile(path) if "://" in path else LocalFile(path)

    def _first_size(self, kind: str, camera: str) -> tuple[int, int]:
        spans = getattr(self, f"{kind}_spans")
        data = self._read(spans, camera, int(np.argmax(spans[camera][:, 2] > 0)))
        try:
            with Image.open(io.BytesIO(data)) as image:
                return image.height, image.width
        except OSError as error:
            raise ValueError(
                f"Data set {self.spec.name!r} does not state the size of the images of "
                f"camera {camera!r}, nor does its first one: {error}."
            ) from error

    def _camera_matrices(self) -> dict[str, dict[str, np.ndarray]]:
        matrices: dict[str, dict[str, np.ndarray]] = {}
        for camera in {**self.spec.cameras, **self.spec.depth}:
            for key, size in (("intrinsics", 3), ("extrinsics", 4)):
                array = self._optional(f"{key}_{camera}")
                if array is not None:
                    shape = (self.num_steps, size, size)
                    matrices.setdefault(camera, {})[key] = array.reshape(shape)
        return matrices

    def _optional(self, name: str) -> np.ndarray | None:
        return self._array(name) if (self.path / f"{name}.npy").exists() else None

    def _array(self, name: str) -> np.ndarray:
        return map_array(self.path / f"{name}.npy")


def open_index(
    path,
    spec: DatasetSpec | str,
    *,
    build: bool = True,
    out=None,
    num_workers: int | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
) -> Index:
    """Opens the index of a data set, building it first when there is none.

    Args:
        path: the data set, as for `open_rlds`.
        spec: a spec or its name.
        build: False makes a missing or outdated index an error.
        out: folder of the index. By default `vla_index/<spec>` in the version folder,
            or a folder below `~/.cache/vla_jax` when that is read-only.
        num_workers: processes; by default as many as the size of the data is worth.
        skip_corrupt: leave out and count records that cannot be read.
        progress: show a progress bar.

    Raises:
        CorruptRecord: for a record that cannot be read, unless `skip_corrupt`.
        ValueError: when the data does not fit the spec, or with `build=False`.
    """
    spec = resolve_spec(spec) if isinstance(spec, str) else spec
    folder = open_rlds(path)
    wanted = fingerprint(folder, spec)
    out = place_index(folder, spec, out, wanted)
    reason = why_rebuild(out, wanted)
    if reason and not build:
        raise ValueError(
            f"The index {out} of {folder.path} cannot be used ({reason}). Build it "
            "with `python launch/index.py --data_dir=... --spec=...`."
        )
    if reason:
        print(f"Building the index {out} ({reason}).")
        build_at(
            folder,
            spec,
            out,
            wanted,
            num_workers=num_workers,
            skip_corrupt=skip_corrupt,
            progress=progress,
        )
    remove_staging(out, wanted)
    index = Index(out, folder.path, spec)
    if index.counts["skipped"] and not reason:
        print(
            f"The index {out} leaves out {index.counts['skipped']} corrupt episodes. "
            "Delete it once their shards are repaired."
        )
    return index


def place_index(folder: RLDSFolder, spec: DatasetSpec, out, wanted: dict) -> Path:
    """Where the index of a data set is or shall be."""
    if out is not None:
        return Path(out).expanduser()
    name = re.sub(r"[^\w.-]", "_", spec.name)
    if "://" not in folder.path:
        beside = Path(folder.path) / "vla_index" / name
        usable = not why_rebuild(beside, wanted)
        if usable or os.access(folder.path, os.W_OK):
            return beside
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    where = hashlib.sha256(str(open_path(folder.path)).encode()).hexdigest()[:16]
    return cache / "vla_jax" / f"{folder.name}-{where}" / name
