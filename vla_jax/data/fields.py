"""Fields of an episode, each decoded when it is first read.

A decoder is a function without arguments, made where a field lies in a record is known.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from vla_jax.data.features import FeatureSpec
from vla_jax.data.tfrecord import Feature

RAGGED = ("/ragged_flat_values", "/ragged_row_lengths_0")


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


def count_steps(key: str, stored: Feature, spec: FeatureSpec) -> int:
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


def array_decoder(payload: memoryview, stored: Feature, spec: FeatureSpec):
    """Numbers of all steps, `[T, ...]`."""
    if spec.encoding == "none":
        return lambda: _cast(stored.value, spec.dtype).reshape(-1, *spec.shape)

    def decode() -> np.ndarray:
        steps = []
        for data in _strings(payload, stored):
            data = zlib.decompress(data) if spec.encoding == "zlib" else data
            steps.append(np.frombuffer(data, spec.dtype).reshape(spec.shape))
        return _stack(steps)

    return decode


def span_decoder(payload: memoryview, key: str, stored: Feature, spec: FeatureSpec):
    """Where the numbers of each step lie, `[T, 2]`, of a tensor of plain numbers.

    `tf.train.Example` keeps the numbers of all steps in one list: float32 one after the
    other, integers in base 128. `vla_jax.data.image.decode_depth` reads one step.
    """

    def decode() -> np.ndarray:
        if stored.packed is None:
            raise ValueError(
                f"the numbers of {key!r} do not lie in one piece, so that single steps "
                "cannot be read; data.source='stream' and 'index' read what tfds writes"
            )
        start, length = stored.packed
        size = int(np.prod(spec.shape))
        if stored.kind == "float":
            steps = np.arange(len(stored.value) // size + 1) * size * 4
        else:  # numbers of one to ten bytes each
            data = np.frombuffer(payload[start : start + length], np.uint8)
            ends = np.flatnonzero(data < 0x80) + 1
            steps = np.concatenate([[0], ends[size - 1 :: size]])
        return np.stack([start + steps[:-1], np.diff(steps)], axis=1)

    return decode


def ragged_decoder(example: Mapping[str, Feature], key: str, spec: FeatureSpec):
    """Sequences of differing length, an object array `[T]`."""
    lengths = example[key + RAGGED[1]].value

    def decode() -> np.ndarray:
        flat = example[key + RAGGED[0]].value if lengths.any() else np.zeros(0)
        flat = _cast(flat, spec.dtype).reshape(-1, *spec.shape)
        return _stack(np.split(flat, np.cumsum(lengths)[:-1]))

    return decode


def text_decoder(payload: memoryview, stored: Feature, spec: FeatureSpec):
    """Byte strings of all steps, or a list of them per step."""

    def decode() -> list:
        strings = _strings(payload, stored)
        if not spec.shape:
            return strings
        size = int(np.prod(spec.shape))
        return [strings[i : i + size] for i in range(0, len(strings), size)]

    return decode


def metadata_decoder(payload: memoryview, stored: Feature, spec: FeatureSpec):
    """What stands once per episode."""

    def decode():
        if spec.kind in ("text", "image"):
            strings = _strings(payload, stored)
            return strings if spec.shape and spec.kind == "text" else strings[0]
        if spec.kind == "ragged":
            return _cast(stored.value, spec.dtype).reshape(-1, *spec.shape)
        return array_decoder(payload, stored, spec)()[0]

    return decode


def constant(value):
    """A decoder of what needs no decoding."""
    return lambda: value


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
