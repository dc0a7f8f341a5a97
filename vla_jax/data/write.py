"""Writes episodes as RLDS: TFRecord shards in the folder layout of tfds, without tfds.

    <data_dir>/<name>/<version>/dataset_info.json
                                features.json
                                <name>-<split>.tfrecord-00000-of-00002

`tfds.builder_from_directory(folder).as_dataset()` reads such a folder, and so does
`vla_jax.data.rlds`. Episodes are one record each, steps flattened over time.
"""

import io
import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image as PILImage

from vla_jax.data.features import (
    IMAGE_MAGIC,
    Image,
    Tensor,
    Text,
    features_json,
    flatten,
)
from vla_jax.data.tfrecord import encode_example, write_record

__all__ = [
    "Image",
    "RLDSWriter",
    "Tensor",
    "Text",
    "encode_episode",
    "encode_image",
]

SHARD_BYTES = 256 * 2**20  # a new shard starts here unless the caller says otherwise


class RLDSWriter:
    """Writes one version of a data set; the folder appears, complete, on `close`.

    with RLDSWriter(data_dir, "my_robot", {"action": Tensor(np.float32, (7,))}) as w:
        w.write("train", {"action": actions})

    An exception inside the `with` block leaves nothing behind.

    Args:
        data_dir: folder that holds data sets.
        name: of the data set, lower case with underscores.
        features: nested dict of step features.
        metadata_features: nested dict of features of the whole episode.
        version: `major.minor.patch`.
        num_shards: shards of every split; episodes go round robin.
        episodes_per_shard: instead of `num_shards`, starts a shard after that many.
        description: a sentence for `dataset_info.json`.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike,
        name: str,
        features: Mapping,
        metadata_features: Mapping | None = None,
        *,
        version: str = "1.0.0",
        num_shards: Mapping[str, int] | None = None,
        episodes_per_shard: int | None = None,
        description: str = "",
    ):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"Data set name {name!r} must be lower case letters, digits and "
                "underscores, letter first (tfds takes no other)."
            )
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            raise ValueError(f"Version {version!r} must look like '1.0.0'.")
        if num_shards is not None and episodes_per_shard is not None:
            raise ValueError("Give num_shards or episodes_per_shard, not both.")
        self.folder = Path(data_dir) / name / version
        if self.folder.exists():
            raise ValueError(
                f"{self.folder} exists already: delete it or write another version."
            )
        self.features = features
        self.metadata_features = metadata_features or {}
        self._name, self._version, self._description = name, version, description
        self._num_shards, self._episodes_per_shard = num_shards, episodes_per_shard
        self._splits: dict[str, list[_OpenShard]] = {}
        self._temporary = self.folder.with_name(f".{version}.incomplete")
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)

    def write(self, split: str, steps: Mapping, metadata: Mapping | None = None):
        """Appends one episode.

        Args:
            split: for example "train" or "val".
            steps: nested like `features`, time first; images are encoded bytes or
                uint8 arrays `[h, w, c]`.
            metadata: nested like `metadata_features`, without a time axis.

        Raises:
            ValueError: for a field that is missing, unknown or of the wrong shape.
        """
        self.write_encoded(
            split,
            encode_episode(self.features, self.metadata_features, steps, metadata),
        )

    def write_encoded(self, split: str, payload: bytes):
        """Appends one episode that `encode_episode` made."""
        self._shard(split).append(payload)

    def close(self) -> Path:
        """Finishes the shards and puts the folder in place; returns its path."""
        if not self._splits:
            self.abort()
            raise ValueError(f"No episode was written to {self.folder}.")
        for split, shards in self._splits.items():
            for index, shard in enumerate(shards):
                shard.file.close()
                name = f"{self._name}-{split}.tfrecord-{index:05d}-of-{len(shards):05d}"
                os.replace(shard.file.name, self._temporary / name)
        _write_json(self._temporary / "dataset_info.json", self._dataset_info())
        features = features_json(self.features, self.metadata_features)
        _write_json(self._temporary / "features.json", features)
        os.replace(self._temporary, self.folder)
        return self.folder

    def abort(self):
        """Throws away everything written so far."""
        for shards in self._splits.values():
            for shard in shards:
                shard.file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> "RLDSWriter":
        return self

    def __exit__(self, kind, error, traceback):
        del error, traceback
        if kind is None:
            self.close()
        else:
            self.abort()

    def _shard(self, split: str) -> "_OpenShard":
        """The shard that takes the next episode of a split."""
        shards = self._splits.setdefault(split, [])
        if self._num_shards is not None:
            if split not in self._num_shards:
                raise ValueError(
                    f"num_shards does not say how many shards split {split!r} has; it "
                    f"names {sorted(self._num_shards)}."
                )
            turn = sum(shard.num_episodes for shard in shards) % self._num_shards[split]
            if turn < len(shards):
                return shards[turn]
        elif shards and not self._is_full(shards[-1]):
            return shards[-1]
        elif shards:
            shards[-1].file.close()
        path = self._temporary / f"{split}-{len(shards):05d}.writing"
        shards.append(_OpenShard(path))
        return shards[-1]

    def _is_full(self, shard: "_OpenShard") -> bool:
        if self._episodes_per_shard is not None:
            return shard.num_episodes >= self._episodes_per_shard
        return shard.num_bytes >= SHARD_BYTES

    def _dataset_info(self) -> dict:
        splits = [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum(shard.num_bytes for shard in shards)),
                "shardLengths": [str(shard.num_episodes) for shard in shards],
            }
            for split, shards in sorted(self._splits.items())
        ]
        return {
            "description": self._description,
            "fileFormat": "tfrecord",
            "name": self._name,
            "splits": splits,
            "version": self._version,
        }


class _OpenShard:
    """A shard being written, and what is in it."""

    def __init__(self, path: Path):
        self.file = path.open("wb")  # closed by the writer
        self.num_episodes = 0
        self.num_bytes = 0

    def append(self, payload: bytes):
        self.num_bytes += write_record(self.file, payload)
        self.num_episodes += 1


def encode_episode(
    features: Mapping,
    metadata_features: Mapping | None,
    steps: Mapping,
    metadata: Mapping | None = None,
) -> bytes:
    """Serializes one episode; arguments as in `RLDSWriter` and `RLDSWriter.write`.

    Raises:
        ValueError: for a field that is missing, unknown or of the wrong shape, and for
            an episode without steps.
    """
    step_specs = flatten(features, "steps/")
    step_values = flatten(steps, "steps/")
    metadata_specs = flatten(metadata_features or {}, "episode_metadata/")
    metadata_values = flatten(metadata or {}, "episode_metadata/")
    _check_names(step_specs | metadata_specs, step_values | metadata_values)
    lengths = {key: len(value) for key, value in step_values.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(
            f"Every field of an episode needs the same number of steps, at least one; "
            f"got {lengths}."
        )
    example = {
        key: _encode_field(key, spec, step_values[key])
        for key, spec in step_specs.items()
    }
    for key, spec in metadata_specs.items():
        example[key] = _encode_field(key, spec, [metadata_values[key]])
    return encode_example(example)


def encode_image(key: str, spec: Image, image) -> bytes:
    """Encodes a picture [h w c] as `spec` says; bytes that are encoded are checked.

    Args:
        key: name of the feature, for messages.
        spec: the feature.
        image: array or bytes.

    Raises:
        ValueError: another size, type or encoding.
    """
    return _encode_image(key, spec, image)


def _check_names(specs: Mapping, values: Mapping):
    missing, unknown = sorted(specs.keys() - values), sorted(values.keys() - specs)
    if missing or unknown:
        raise ValueError(
            f"The episode does not match the features: missing {missing}, unknown "
            f"{unknown}; the features are {sorted(specs)}."
        )


def _encode_field(key: str, spec, values) -> list[bytes] | np.ndarray:
    """Values of one field, time first, as `encode_example` takes them."""
    if isinstance(spec, Text):
        return [
            value.encode() if isinstance(value, str) else bytes(value)
            for value in values
        ]
    if isinstance(spec, Image):
        return [_encode_image(key, spec, value) for value in values]
    array = np.asarray(values)
    dtype = np.dtype(spec.dtype)
    if array.shape[1:] != tuple(spec.shape):
        raise ValueError(
            f"{key!r} has shape {array.shape[1:]} per step; expected {spec.shape}."
        )
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ValueError(f"{key!r} has dtype {array.dtype}; expected {dtype}.")
    array = array.astype(dtype)
    if spec.encoding == "none":
        return array
    pack = zlib.compress if spec.encoding == "zlib" else bytes
    return [pack(step.tobytes()) for step in array]


def _encode_image(key: str, spec: Image, image) -> bytes:
    shape = (spec.height, spec.width, spec.channels)
    is_float = np.dtype(spec.dtype) == np.float32
    if isinstance(image, bytes | bytearray | memoryview):
        image = bytes(image)
        if not image.startswith(IMAGE_MAGIC[spec.encoding]):
            raise ValueError(f"{key!r} holds bytes that are no {spec.encoding} image.")
        with PILImage.open(io.BytesIO(image)) as header:
            size = (header.height, header.width, len(header.getbands()))
        if size != ((*shape[:2], 4) if is_float else shape):
            raise ValueError(f"{key!r} holds an image of {size}; expected {shape}.")
        return image
    image = np.asarray(image)
    if image.shape != shape or image.dtype != spec.dtype:
        raise ValueError(
            f"{key!r} has an image of {image.dtype} {image.shape}; expected "
            f"{np.dtype(spec.dtype)} {shape}."
        )
    if spec.encoding == "jpeg":
        return simplejpeg.encode_jpeg(
            np.ascontiguousarray(image),
            quality=spec.quality,
            colorspace="RGB" if spec.channels == 3 else "GRAY",
        )
    file = io.BytesIO()
    if is_float:
        image = np.ascontiguousarray(image, "<f4").view(np.uint8)
    elif spec.channels == 1:
        image = image[:, :, 0]
    PILImage.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _write_json(path: Path, content: dict):
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
