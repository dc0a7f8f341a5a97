"""What a data set holds: features, and how tfds writes them down in `features.json`.

Writing takes `Image`, `Text` and `Tensor` in nested dicts. Reading gives one flat dict
from key (`steps/observation/image`) to `FeatureSpec`.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vla_jax.names import did_you_mean

IMAGE_MAGIC = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
TENSOR_ENCODINGS = ("none", "bytes", "zlib")
_CLASS = "tensorflow_datasets.core.features."


@dataclasses.dataclass(frozen=True)
class Image:
    """One encoded image per step.

    Attributes:
        height, width, channels: size in pixels.
        encoding: "jpeg" or "png".
        dtype: uint8; for PNG images of one channel also uint16 (depth in millimetres)
            or float32 (stored as tfds does: four channels are the bytes of a number).
        quality: of JPEG images that the writer encodes itself.
    """

    height: int
    width: int
    channels: int = 3
    encoding: str = "jpeg"
    dtype: type = np.uint8
    quality: int = 95

    def __post_init__(self):
        if self.encoding not in IMAGE_MAGIC:
            raise ValueError(
                f"Unknown image encoding {self.encoding!r}; "
                f"{did_you_mean(self.encoding, IMAGE_MAGIC)}"
            )
        if np.dtype(self.dtype) != np.uint8 and (
            np.dtype(self.dtype) not in (np.uint16, np.float32)
            or self.encoding != "png"
            or self.channels != 1
        ):
            raise ValueError(
                f"Images of dtype {np.dtype(self.dtype)} cannot be written as "
                f"{self.encoding} with {self.channels} channels; uint8 always can, "
                "uint16 as png with 1 channel, and so can float32."
            )


@dataclasses.dataclass(frozen=True)
class Text:
    """One string per step (or per episode, in the metadata)."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Numbers per step. `tf.train.Example` keeps float32: float64 loses precision.

    Attributes:
        dtype: of the numbers.
        shape: of one step.
        encoding: "none", or "bytes" or "zlib" to store the memory of each step, plain
            or compressed, which keeps every dtype.
    """

    dtype: type
    shape: tuple[int, ...] = ()
    encoding: str = "none"

    def __post_init__(self):
        if self.encoding not in TENSOR_ENCODINGS:
            raise ValueError(
                f"Unknown tensor encoding {self.encoding!r}; "
                f"{did_you_mean(self.encoding, TENSOR_ENCODINGS)}"
            )


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """How one field of a data set is stored.

    Attributes:
        kind: "image", "text", "tensor"; "ragged" for a sequence within every step;
            "other" for what this library does not read (audio, video, boxes, ...).
        dtype: numpy name of the decoded type; "string" for text.
        shape: of one step (or of the whole episode outside `steps`); -1 is unknown.
        encoding: "jpeg", "png" or "" for images; "none", "zlib" or "bytes" otherwise.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    encoding: str = "none"


def flatten(tree: Mapping, prefix: str = "") -> dict:
    """Nested dicts to one dict with keys joined by slashes."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[prefix + key] = value
    return flat


def features_json(features: Mapping, metadata_features: Mapping) -> dict:
    """Content of `features.json`: the protobuf JSON of tfds' feature connectors."""
    steps = {
        "pythonClassName": _CLASS + "dataset_feature.Dataset",
        "sequence": {"feature": _feature_json(features), "length": "-1"},
    }
    top = {"steps": steps}
    if metadata_features:
        top["episode_metadata"] = _feature_json(metadata_features)
    return _features_dict(top)


def parse_features(content: Mapping) -> dict[str, FeatureSpec]:
    """Reads the content of `features.json` into one flat dict.

    Raises:
        ValueError: for the form that tfds wrote before 4.4, and without `steps`.
    """
    if "featuresDict" not in content:
        raise ValueError(
            "features.json is not in the form that tfds 4.4 and later write; it has "
            f"the keys {sorted(content)}. Write the data set again with a current tfds."
        )
    top = content["featuresDict"].get("features", {})
    if "sequence" not in top.get("steps", {}):
        raise ValueError(
            "The data set is not RLDS: it has no sequence 'steps' but only the "
            f"features {sorted(top)}."
        )
    specs = {}
    for key, feature in top.items():
        if key == "steps":
            feature = feature["sequence"]["feature"]
        specs.update(_parse_feature(feature, key, ragged=0))
    return specs


def _features_dict(features: dict) -> dict:
    return {
        "pythonClassName": _CLASS + "features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def _feature_json(spec) -> dict:
    if isinstance(spec, Mapping):
        return _features_dict({key: _feature_json(spec[key]) for key in sorted(spec)})
    if isinstance(spec, Text):
        return {"pythonClassName": _CLASS + "text_feature.Text", "text": {}}
    if isinstance(spec, Image):
        name, field = "image_feature.Image", "image"
        shape = (spec.height, spec.width, spec.channels)
        encoding = {"encodingFormat": spec.encoding}
    else:
        name = "tensor_feature.Tensor" if spec.shape else "scalar.Scalar"
        field = "tensor"
        shape = spec.shape
        encoding = {"encoding": spec.encoding}
    # JSON of protobuf writes 64-bit integers as strings.
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    dtype = np.dtype(spec.dtype).name
    return {
        "pythonClassName": _CLASS + name,
        field: {"dtype": dtype, "shape": dimensions, **encoding},
    }


def _parse_feature(feature: Mapping, key: str, ragged: int) -> dict[str, FeatureSpec]:
    """Flattens one feature; `ragged` counts the sequences around it within a step."""
    if "featuresDict" in feature:
        specs = {}
        for name, child in feature["featuresDict"].get("features", {}).items():
            specs.update(_parse_feature(child, f"{key}/{name}", ragged))
        return specs
    if "sequence" in feature:
        return _parse_feature(feature["sequence"]["feature"], key, ragged + 1)
    spec = _parse_leaf(feature)
    if ragged:
        plain = spec.kind == "tensor" and spec.encoding == "none" and ragged == 1
        spec = dataclasses.replace(spec, kind="ragged" if plain else "other")
    return {key: spec}


def _parse_leaf(feature: Mapping) -> FeatureSpec:
    if "image" in feature:
        content = feature["image"]
        encoding = content.get("encodingFormat", "")
        return FeatureSpec(
            "image",
            content.get("dtype", "uint8"),
            _shape(content) or (-1, -1, 3),
            encoding,
        )
    if "text" in feature:
        return FeatureSpec("text", "string", ())
    if "classLabel" in feature:
        return FeatureSpec("tensor", "int64", ())
    if "tensor" not in feature:
        return FeatureSpec("other", "", ())
    content = feature["tensor"]
    dtype, shape = content.get("dtype", "float32"), _shape(content)
    encoding = content.get("encoding") or "none"
    if dtype in ("string", "object", "str", "bytes"):
        return FeatureSpec("other" if -1 in shape else "text", "string", shape)
    try:
        np.dtype(dtype)
    except TypeError:
        return FeatureSpec("other", dtype, shape, encoding)
    # One unknown size can be inferred per step where steps are stored apart.
    known = shape.count(-1) <= (0 if encoding == "none" else 1)
    return FeatureSpec("tensor" if known else "other", dtype, shape, encoding)


def _shape(content: Mapping) -> tuple[int, ...]:
    return tuple(int(n) for n in content.get("shape", {}).get("dimensions", ()))
