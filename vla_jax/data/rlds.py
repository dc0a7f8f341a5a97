"""One RLDS data set on disk: its features, splits and shards, and one episode of it.

Reads what tfds wrote (a `<name>/<version>/` folder with TFRecord shards) where it lies.
Images stay encoded: an episode knows where in its record they are.
"""

import dataclasses
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vla_jax.data.features import FeatureSpec, parse_features
from vla_jax.data.remote import open_path
from vla_jax.data.tfrecord import Feature, parse_example
from vla_jax.names import names_around

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_RAGGED = ("/ragged_flat_values", "/ragged_row_lengths_0")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file; `num_examples` is None where the data set does not say."""

    path: str
    num_examples: int | None


@dataclasses.dataclass(frozen=True)
class RLDSFolder:
    """One version of one data set.

    Attributes:
        path: the version folder.
        name, version: from `dataset_info.json`.
        splits: split name to its shards, in order.
        features: flat key, such as `steps/observation/image`, to what it holds.
    """

    path: str
    name: str
    version: str
    splits: Mapping[str, tuple[Shard, ...]]
    features: Mapping[str, FeatureSpec]


class Fields(Mapping):
    """Fields of an episode by key, each decoded when first read.

    A missing key is a `ValueError` that lists the keys there are.
    """

    def __init__(self, what: str, decoders: Mapping[str, Callable]):
        self._what, self._decoders, self._values = what, decoders, {}

    def __getitem__(self, key: str):
        if key not in self._decoders:
            raise ValueError(
                f"The episode has no {self._what} {key!r}; it has {sorted(self)}."
            )
        if key not in self._values:
            self._values[key] = self._decoders[key]()
        return self._values[key]

    def __contains__(self, key) -> bool:
        return key in self._decoders

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoders)

    def __len__(self) -> int:
        return len(self._decoders)


@dataclasses.dataclass(frozen=True)
class RawEpisode:
    """One episode as the data set has it. Keys are flat and complete.

    Attributes:
        num_steps: T.
        arrays: `steps/...` to `[T, ...]`; an object array where steps differ in shape.
        text: `steps/...` to T byte strings (T lists of them for string tensors).
        images: `steps/...` to `[T, 2]` int64, offset and length within the record;
            length 0 where the step has no image. Tensors stored as (zlib) bytes are
            here too: depth images come that way.
        metadata: `episode_metadata/...` (and whatever else stands beside `steps`) to an
            array, a scalar or a byte string.
    """

    num_steps: int
    arrays: Mapping[str, np.ndarray]
    text: Mapping[str, list[bytes]]
    images: Mapping[str, np.ndarray]
    metadata: Mapping


def open_rlds(path) -> RLDSFolder:
    """Opens a data set.

    Args:
        path: the version folder `<data_dir>/<name>/<version>`, or a folder above it
            that holds exactly one data set; of several versions the newest is taken.

    Raises:
        ValueError: naming what was found instead.
    """
    folder = _find_version(open_path(path))
    info = json.loads((folder / "dataset_info.json").read_text())
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != "tfrecord":
        raise ValueError(
            f"{folder} is stored as {file_format!r}; only 'tfrecord' can be read. "
            "Write it again with tfds and file_format='tfrecord'."
        )
    try:
        features = parse_features(json.loads((folder / "features.json").read_text()))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    try:
        present = {child.name for child in folder.iterdir()}
    except FileNotFoundError:  # a web server that does not list its folders
        present = None
    splits = {
        split["name"]: _shards(folder, info, split, present)
        for split in info.get("splits", [])
    }
    if not splits:
        raise ValueError(f"{folder / 'dataset_info.json'} lists no split.")
    return RLDSFolder(
        str(folder), info["name"], info.get("version", folder.name), splits, features
    )


def episode_from_record(payload, features: Mapping[str, FeatureSpec]) -> RawEpisode:
    """Reads one record; images are not copied and nothing is decoded before its use.

    Raises:
        ValueError: when the record is not an episode with these features.
    """
    payload = memoryview(payload)
    return episode_from_example(payload, parse_example(payload), features)


def episode_from_example(
    payload: memoryview,
    example: Mapping[str, Feature],
    features: Mapping[str, FeatureSpec],
) -> RawEpisode:
    """As `episode_from_record`, of fields found by other means than the wire format."""
    counts, arrays, text, images, metadata = {}, {}, {}, {}, {}
    for key, spec in features.items():
        stored = example.get(key)
        if spec.kind == "ragged":
            stored = example.get(key + _RAGGED[1], stored)
        if spec.kind == "other" or stored is None or not stored.kind:
            continue
        is_bytes = spec.kind in ("image", "text") or spec.encoding != "none"
        if (stored.kind == "bytes") != is_bytes:
            raise ValueError(f"{key!r} is {spec.kind} but stored as {stored.kind}")
        if not key.startswith("steps/"):
            metadata[key] = _metadata_decoder(payload, stored, spec)
            continue
        counts[key] = _count(key, stored, spec)
        if spec.kind == "image" or spec.encoding in ("zlib", "bytes"):
            images[key] = stored.value
        if spec.kind == "image":
            continue
        if spec.kind == "text":
            text[key] = _text_decoder(payload, stored, spec)
        elif spec.kind == "ragged":
            arrays[key] = _ragged_decoder(example, key, spec)
        else:
            arrays[key] = _array_decoder(payload, stored, spec)
    num_steps = max(counts.values(), default=0)
    if set(counts.values()) != {num_steps} or not num_steps:
        raise ValueError(f"its fields differ in their number of steps: {counts}")
    for key, spec in features.items():
        if spec.kind == "image" and key.startswith("steps/") and key not in images:
            images[key] = np.zeros((num_steps, 2), np.int64)
    return RawEpisode(
        num_steps,
        Fields("array", arrays),
        Fields("text", text),
        Fields("image", {key: _constant(value) for key, value in images.items()}),
        Fields("metadata", metadata),
    )


def _find_version(path):
    """The version folder that `path` is or holds."""
    # A web server that does not list its folders may still have the files.
    if not path.exists() and not (path / "features.json").exists():
        raise ValueError(f"There is no folder {path}.{names_around(path)}")
    found = _version_folders(path, depth=3)
    if not found:
        names = sorted(child.name for child in path.iterdir())[:10]
        holds = f"it holds {names}" if names else "it is empty"
        raise ValueError(
            f"{path} holds no RLDS data set: expected <name>/<version>/ with "
            f"dataset_info.json and features.json, but {holds}."
        )
    parents = {folder.parent for folder in found}
    if len(parents) > 1:
        names = sorted(str(folder.relative_to(path)) for folder in found)
        raise ValueError(f"{path} holds several data sets: name one of {names}.")
    return max(found, key=lambda folder: _version_key(folder.name))


def _version_folders(path, depth: int) -> list:
    if (path / "features.json").exists() and (path / "dataset_info.json").exists():
        return [path]
    if depth == 0:
        return []
    folders = []
    for child in path.iterdir():
        # Hidden folders are unfinished: writers put them in place when done.
        if not child.name.startswith(".") and child.is_dir():
            folders += _version_folders(child, depth - 1)
    return folders


def _version_key(name: str) -> tuple:
    return tuple(int(part) for part in re.findall(r"\d+", name))


def _shards(
    folder, info: Mapping, split: Mapping, present: set | None
) -> tuple[Shard, ...]:
    """Shards of one split, all of which must be there, if that can be told."""
    template = (split.get("filepathTemplate") or _TEMPLATE).split("%")[0]
    for field, value in (
        ("{DATASET}", info["name"]),
        ("{SPLIT}", split["name"]),
        ("{FILEFORMAT}", "tfrecord"),
    ):
        template = template.replace(field, value)
    lengths = [int(length) for length in split.get("shardLengths", [])]
    if not lengths:
        pattern = re.escape(template)
        for field in ("{SHARD_X_OF_Y}", "{SHARD_INDEX}", "{NUM_SHARDS}"):
            pattern = pattern.replace(re.escape(field), r"\d+(-of-\d+)?")
        names = sorted(name for name in present or () if re.fullmatch(pattern, name))
        return tuple(Shard(str(folder / name), None) for name in names)
    digits = max(5, len(str(len(lengths))))
    total = f"{len(lengths):0{digits}d}"
    names = []
    for index in range(len(lengths)):
        shard = f"{index:0{digits}d}"
        names.append(
            template.replace("{SHARD_X_OF_Y}", f"{shard}-of-{total}")
            .replace("{SHARD_INDEX}", shard)
            .replace("{NUM_SHARDS}", total)
        )
    missing = [n for n in names if present is not None and n not in present]
    if missing:
        raise ValueError(
            f"Split {split['name']!r} of {folder} lacks {len(missing)} of its "
            f"{len(names)} shards, for example {missing[0]}: download it again, or "
            "remove those shards from dataset_info.json."
        )
    return tuple(
        Shard(str(folder / name), length)
        for name, length in zip(names, lengths, strict=True)
    )


def _count(key: str, stored: Feature, spec: FeatureSpec) -> int:
    """Steps that the stored values make up."""
    if spec.kind in ("image", "ragged") or spec.encoding in ("zlib", "bytes"):
        return len(stored.value)
    size = int(np.prod(spec.shape))
    if size == 0 or len(stored.value) % size:
        raise ValueError(
            f"{key!r} has {len(stored.value)} values, no multiple of the {size} that "
            f"its shape {spec.shape} needs"
        )
    return len(stored.value) // size


def _array_decoder(payload: memoryview, stored: Feature, spec: FeatureSpec):
    if spec.encoding == "none":
        return lambda: _cast(stored.value, spec.dtype).reshape(-1, *spec.shape)

    def decode() -> np.ndarray:
        steps = []
        for data in _strings(payload, stored):
            data = zlib.decompress(data) if spec.encoding == "zlib" else data
            steps.append(np.frombuffer(data, spec.dtype).reshape(spec.shape))
        return _stack(steps)

    return decode


def _ragged_decoder(example: Mapping[str, Feature], key: str, spec: FeatureSpec):
    lengths = example[key + _RAGGED[1]].value

    def decode() -> np.ndarray:
        flat = example[key + _RAGGED[0]].value if lengths.any() else np.zeros(0)
        flat = _cast(flat, spec.dtype).reshape(-1, *spec.shape)
        return _stack(np.split(flat, np.cumsum(lengths)[:-1]))

    return decode


def _text_decoder(payload: memoryview, stored: Feature, spec: FeatureSpec):
    def decode() -> list:
        strings = _strings(payload, stored)
        if not spec.shape:
            return strings
        size = int(np.prod(spec.shape))
        return [strings[i : i + size] for i in range(0, len(strings), size)]

    return decode


def _metadata_decoder(payload: memoryview, stored: Feature, spec: FeatureSpec):
    def decode():
        if spec.kind in ("text", "image"):
            strings = _strings(payload, stored)
            return strings if spec.shape and spec.kind == "text" else strings[0]
        if spec.kind == "ragged":
            return _cast(stored.value, spec.dtype).reshape(-1, *spec.shape)
        return _array_decoder(payload, stored, spec)()[0]

    return decode


def _strings(payload: memoryview, stored: Feature) -> list[bytes]:
    return [bytes(payload[start : start + n]) for start, n in stored.value.tolist()]


def _cast(values: np.ndarray, dtype: str) -> np.ndarray:
    # tf.train.Example has no uint64: tfds stores its bits as int64.
    return values.view(np.uint64) if dtype == "uint64" else values.astype(dtype)


def _stack(steps: list[np.ndarray]) -> np.ndarray:
    if len({step.shape for step in steps}) == 1:
        return np.stack(steps)
    stacked = np.empty(len(steps), object)
    stacked[:] = steps
    return stacked


def _constant(value):
    return lambda: value
