"""One RLDS data set on disk: its features, splits and shards, and one episode of it.

Reads what tfds wrote (a `<name>/<version>/` folder with TFRecord shards) where it lies.
Images stay encoded: an episode knows where in its record they are.
"""

import dataclasses
import json
import re
from collections.abc import Mapping

import numpy as np

from vla_jax.data.features import FeatureSpec, parse_features
from vla_jax.data.fields import (
    RAGGED,
    Fields,
    array_decoder,
    constant,
    count_steps,
    metadata_decoder,
    ragged_decoder,
    span_decoder,
    text_decoder,
)
from vla_jax.data.remote import open_path
from vla_jax.data.tfrecord import Feature, parse_example
from vla_jax.names import names_around

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


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


@dataclasses.dataclass(frozen=True)
class RawEpisode:
    """One episode as the data set has it. Keys are flat and complete.

    Attributes:
        num_steps: T.
        arrays: `steps/...` to `[T, ...]`; an object array where steps differ in shape.
        text: `steps/...` to T byte strings (T lists of them for string tensors).
        images: `steps/...` to `[T, 2]` int64, offset and length within the record;
            length 0 where the step has no image. Tensors stored as (zlib) bytes and
            those of two or more dimensions are here too: depth images come that way.
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
            stored = example.get(key + RAGGED[1], stored)
        if spec.kind == "other" or stored is None or not stored.kind:
            continue
        is_bytes = spec.kind in ("image", "text") or spec.encoding != "none"
        if (stored.kind == "bytes") != is_bytes:
            raise ValueError(f"{key!r} is {spec.kind} but stored as {stored.kind}")
        if not key.startswith("steps/"):
            metadata[key] = metadata_decoder(payload, stored, spec)
            continue
        counts[key] = count_steps(key, stored, spec)
        if spec.kind == "image" or spec.encoding in ("zlib", "bytes"):
            images[key] = constant(stored.value)
        elif holds_depth(spec):
            images[key] = span_decoder(payload, key, stored, spec)
        if spec.kind == "image":
            continue
        if spec.kind == "text":
            text[key] = text_decoder(payload, stored, spec)
        elif spec.kind == "ragged":
            arrays[key] = ragged_decoder(example, key, spec)
        else:
            arrays[key] = array_decoder(payload, stored, spec)
    num_steps = max(counts.values(), default=0)
    if set(counts.values()) != {num_steps} or not num_steps:
        raise ValueError(f"its fields differ in their number of steps: {counts}")
    for key, spec in features.items():
        if spec.kind == "image" and key.startswith("steps/") and key not in images:
            images[key] = constant(np.zeros((num_steps, 2), np.int64))
    return RawEpisode(
        num_steps,
        Fields("array", arrays),
        Fields("text", text),
        Fields("image", images),
        Fields("metadata", metadata),
    )


def holds_depth(spec: FeatureSpec) -> bool:
    """Whether a feature may be a depth image: `[h, w]` or `[h, w, 1]` of something."""
    if spec.kind == "image" or spec.encoding in ("zlib", "bytes"):
        return True
    flat = len(spec.shape) == 2 or (len(spec.shape) == 3 and spec.shape[2] == 1)
    return spec.kind == "tensor" and flat


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
