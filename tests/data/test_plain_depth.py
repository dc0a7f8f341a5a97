"""Depth that is stored as a tensor of plain numbers, from disk to batch."""

import dataclasses
import importlib.util

import numpy as np
import pytest

from tests import fake
from vla_jax.data.image import decode_depth
from vla_jax.data.index import open_index
from vla_jax.data.loader import train_batches
from vla_jax.data.rlds import episode_from_example, episode_from_record, open_rlds
from vla_jax.data.source import open_source
from vla_jax.data.standardize import resolve_spec
from vla_jax.data.tfrecord import encode_example, parse_example
from vla_jax.data.write import Image, RLDSWriter, Tensor

NEEDS_DLIMP = pytest.mark.skipif(
    importlib.util.find_spec("dlimp") is None, reason="dlimp is not installed"
)
SPEC = """
from vla_jax.data.standardize import DatasetSpec

def standardize(raw):
    return {"proprio": raw.arrays["steps/action"], "action": raw.arrays["steps/action"],
            "language": ["go"], "steps": list(range(1, raw.num_steps))}

ROBOT = DatasetSpec(
    name="robot",
    cameras={"primary": "steps/image"},
    depth={"primary": "steps/metres", "wrist": "steps/millimetres"},
    action=("relative", "relative"),
    control_hz=5.0,
    standardize=standardize,
    holdout=0.0,
)
"""


def metres(episode: int, step: int) -> np.ndarray:
    pixels = np.arange(12, dtype=np.float32).reshape(3, 4)
    return 10 * episode + step + pixels / 16


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    """Two episodes of 4 and 3 steps, of which the first is left out; their folder and
    the name of their spec."""
    path = tmp_path_factory.mktemp("robot")
    (path / "spec.py").write_text(SPEC)
    features = {
        "image": Image(8, 8),
        "metres": Tensor(np.float32, (3, 4)),
        "millimetres": Tensor(np.int32, (3, 4, 1)),
        "flow": Tensor(np.float32, (3, 4, 2)),
        "action": Tensor(np.float32, (2,)),
    }
    with RLDSWriter(path, "robot", features) as writer:
        for episode, length in enumerate((4, 3)):
            depth = np.stack([metres(episode, t) for t in range(length)])
            steps = {
                "image": [fake.image(episode, t) for t in range(length)],
                "metres": depth,
                # From one to three bytes each in base 128; a negative one has ten.
                "millimetres": np.rint(depth * 1000).astype(np.int32)[..., None] - 1,
                "flow": np.zeros((length, 3, 4, 2), np.float32),
                "action": np.full((length, 2), episode, np.float32),
            }
            writer.write("train", steps)
    return writer.folder, f"{path / 'spec.py'}:ROBOT"


def config(robot, **changes):
    dataset = {"path": str(robot[0]), "spec": robot[1]}
    plain = {"action": "none", "proprio": "none"}
    return fake.data_config(
        datasets=(dataset,),
        cameras=("primary",),
        depth=("primary", "wrist"),
        image_size=(3, 4),
        window=1,
        normalization=plain,
        **changes,
    )


def test_every_step_has_its_own_numbers(robot):
    index = open_index(*robot, progress=False)
    places = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    for step, (episode, t) in enumerate(places):
        for camera, expected in (
            ("primary", metres(episode, t)),
            ("wrist", np.rint(metres(episode, t) * 1000) / 1000 - 0.001),
        ):
            depth = np.zeros((3, 4), np.float32)
            feature = index.depth_features[camera]
            decode_depth(index.read_depth(camera, step), feature, depth, None)
            np.testing.assert_allclose(depth, expected, atol=1e-6)
    assert index.depth_spans["primary"][:, 2].tolist() == [3 * 4 * 4] * 5


@pytest.mark.parametrize("kind", ["index", "stream"])
def test_batches_have_it(robot, kind):
    open_index(*robot, progress=False)
    source = open_source(config(robot, source=kind))
    with train_batches(source, seed=0) as batches:
        batch = next(batches)
    for row in range(2):
        step = int(batch["step"][row]) + 1
        depth = batch["observation"]["depth"]["primary"][row, 0]
        expected = metres(int(batch["episode"][row]), step)
        np.testing.assert_allclose(depth, expected, atol=1e-6)


@NEEDS_DLIMP
def test_dlimp_gives_depth_of_floats_and_refuses_integers(robot, tmp_path):
    with pytest.raises(ValueError, match="'steps/millimetres' do not lie in one"):
        open_source(config(robot, source="dlimp"))
    one = {**config(robot), "depth": ("primary",)}
    text = SPEC.replace(', "wrist": "steps/millimetres"', "")
    (tmp_path / "floats.py").write_text(text)
    one["datasets"] = (
        {"path": str(robot[0]), "spec": f"{tmp_path / 'floats.py'}:ROBOT"},
    )
    batches = []
    for kind in ("stream", "dlimp"):
        with train_batches(open_source({**one, "source": kind}), seed=0) as made:
            batches.append(next(made)["observation"]["depth"]["primary"])
    np.testing.assert_array_equal(*batches)


def test_numbers_in_pieces_are_refused_when_depth_is_asked_for(robot):
    stored = open_rlds(robot[0]).features["steps/metres"]
    features = {"steps/depth": dataclasses.replace(stored, shape=(2, 2))}
    payload = encode_example({"steps/depth": np.arange(8, dtype=np.float32)})
    spans = episode_from_record(payload, features).images["steps/depth"]
    assert spans[:, 1].tolist() == [16, 16] and spans[1, 0] - spans[0, 0] == 16
    example = {
        key: dataclasses.replace(value, packed=None)
        for key, value in parse_example(payload).items()
    }
    raw = episode_from_example(memoryview(payload), example, features)
    assert raw.arrays["steps/depth"].shape == (2, 2, 2)
    with pytest.raises(ValueError, match="'steps/depth' do not lie in one piece"):
        _ = raw.images["steps/depth"]


def test_what_is_no_depth_image_is_refused_with_what_could_be(robot):
    spec = resolve_spec(robot[1])
    flow = dataclasses.replace(spec, depth={"primary": "steps/flow"})
    message = r"'steps/flow'.*only the .*'steps/image', 'steps/metres', 'steps/millim"
    with pytest.raises(ValueError, match=message):
        open_index(robot[0], flow, progress=False)


@pytest.mark.parametrize(
    ("dtype", "data"), [("float32", b"\0" * 15), ("int32", b"\x80"), ("int32", b"\1")]
)
def test_damaged_numbers_are_named(dtype, data):
    feature = {"encoding": "none", "dtype": dtype, "shape": [2, 2]}
    with pytest.raises(ValueError, match="damaged tensor"):
        decode_depth(data, feature, np.zeros((2, 2), np.float32), None)
