"""Small data sets on disk in the schemas of Open-X, and what their index must hold."""

import numpy as np

from tests import fake
from vla_jax.data.features import flatten
from vla_jax.data.image import decode_depth
from vla_jax.data.standardize import DATASETS
from vla_jax.data.write import Image, RLDSWriter, Tensor, Text

KINDS = {"relative": "r", "absolute": "a", "gripper": "g"}
FILE = {"file_path": Text()}
_ENDS = {
    "is_first": Tensor(np.bool_),
    "is_last": Tensor(np.bool_),
    "is_terminal": Tensor(np.bool_),
    "reward": Tensor(np.float32),
}


def numbers(*shape: int, dtype=np.float32) -> Tensor:
    """A feature of numbers."""
    return Tensor(dtype, shape)


def counting(num_steps: int, width: int) -> np.ndarray:
    """Numbers that tell where they stand: 100 times the step plus the column."""
    return (100 * np.arange(num_steps)[:, None] + np.arange(width)).astype(np.float32)


def in_parts(action: dict, observation: dict, embedding: bool = True) -> dict:
    """Features as Google converted the first Open-X data sets."""
    text = {"natural_language_instruction": Text()}
    if embedding:
        text["natural_language_embedding"] = numbers(512)
    return {"action": action, "observation": observation | text, **_ENDS}


def in_one(width: int, observation: dict, embedding: bool = True, **more) -> dict:
    """Features as laboratories converted their own: one action, text beside it."""
    text = {"language_instruction": Text()}
    if embedding:
        text["language_embedding"] = numbers(512)
    return {
        "action": numbers(width),
        "observation": observation,
        "discount": numbers(),
        **text,
        **_ENDS,
        **more,
    }


def write(tmp_path, name, features, steps, metadata_features=None, metadata=None):
    """Writes one episode; fields that `steps` leaves out are blank.

    Returns:
        The version folder.
    """
    flat = flatten(features)
    num_steps = len(next(iter(steps.values())))
    assert set(steps) <= set(flat), sorted(set(steps) - set(flat))
    values = {key: [_blank(spec)] * num_steps for key, spec in flat.items()} | steps
    metadata_features = metadata_features or {}
    blank = {key: _blank(spec) for key, spec in flatten(metadata_features).items()}
    with RLDSWriter(tmp_path, name.lower(), features, metadata_features) as writer:
        writer.write("train", values, blank | (metadata or {}))
    return writer.folder


def check(
    tmp_path,
    name: str,
    features: dict,
    steps: dict,
    *,
    action,
    proprio,
    language,
    kinds: str = "rrrrrrg",
    hz: float,
    depth=None,
    metadata_features=None,
    metadata=None,
):
    """Writes one episode, indexes it by its spec and compares every step.

    Args:
        tmp_path: an empty folder.
        name: of the spec.
        features: as the data set has them.
        steps: by flat key, what is not blank in the episode.
        action: expected rows.
        proprio: expected rows.
        language: expected alternatives, of all steps or of each.
        kinds: expected kind of each action dimension, by its first letter.
        hz: expected steps per second.
        depth: camera to the metres that all pixels of each step must have.
        metadata_features: of the episode.
        metadata: what is not blank there.

    Returns:
        The index.
    """
    folder = write(tmp_path, name, features, steps, metadata_features, metadata)
    spec = DATASETS[name]
    index = fake.open_index(folder, spec)
    assert "".join(KINDS[kind] for kind in spec.action) == kinds
    assert spec.control_hz == hz and spec.name == name
    np.testing.assert_allclose(index.action, action, atol=1e-6)
    np.testing.assert_allclose(index.proprio, proprio, atol=1e-6)
    each = language if isinstance(language[0], list) else [language] * len(action)
    assert [index.instructions(step) for step in range(len(action))] == each
    assert set(index.image_spans) == set(spec.cameras)
    for spans in (*index.image_spans.values(), *index.depth_spans.values()):
        assert len(spans) == len(action) and (spans[:, 2] > 0).all()
    for camera, metres in (depth or {}).items():
        for step, expected in enumerate(metres):
            found = np.zeros((3, 5), np.float32)
            data, feature = index.read_depth(camera, step), index.depth_features[camera]
            decode_depth(data, feature, found, spec.depth_scale.get(camera))
            np.testing.assert_allclose(found, np.full((3, 5), expected), rtol=1e-6)
    return index


def plain(num_steps: int, *shape: int, dtype=np.float32) -> np.ndarray:
    """Depth images whose pixels are all 300, 301, 302, ..."""
    steps = 300 + np.arange(num_steps).reshape(-1, *(1,) * len(shape))
    return np.broadcast_to(steps, (num_steps, *shape)).astype(dtype)


def _blank(spec):
    if isinstance(spec, Text):
        return ""
    if isinstance(spec, Image):
        return np.zeros((spec.height, spec.width, spec.channels), spec.dtype)
    return np.zeros(spec.shape, spec.dtype)
