"""What a policy asks for, down to depth and camera matrices, and how it is given."""

import json

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from tests import fake
from tests.serving.fake_policy import Words
from tests.serving.test_agent import metadata
from vla_jax.data.source import open_source
from vla_jax.serving.live import live_policy, make_forward
from vla_jax.serving.program import export_program, load_program
from vla_jax.serving.schema import Schema

DEPTH = dict(
    depth=["primary"],
    depth_cameras={"robot": ["primary"]},
    camera_matrices={"robot": {"primary": ["extrinsics", "intrinsics"]}},
)


def observe(**changes):
    eye = np.eye(4, dtype=np.float32)
    return {
        "image": {c: np.zeros((32, 32, 3), np.uint8) for c in ("primary", "wrist")},
        "depth": {"primary": np.full((32, 32), 2.0, np.float32)},
        "camera": {"primary": {"intrinsics": 32 * eye[:3, :3], "extrinsics": eye}},
        "proprio": np.zeros(4),
        **changes,
    }


class Reader(nn.Module):
    """Its actions are what it reads of depth and matrices."""

    def sample(self, observation, task, rng):
        del task, rng
        primary, wrist = (observation.camera[c] for c in ("primary", "wrist"))
        numbers = [
            observation.depth["primary"][:, -1].mean((1, 2)),
            primary["intrinsics"][:, -1, 0, 0] + wrist["extrinsics"][:, -1].sum((1, 2)),
            primary["extrinsics"][:, -1, 3, 3],
        ]
        return jnp.repeat(jnp.stack(numbers, -1)[:, None], 2, 1)


def content(**changes):
    return {
        **metadata(),
        **DEPTH,
        "normalization": dict(action="none", proprio="none"),
        **changes,
    }


def test_depth_and_matrices_reach_the_model_live_and_exported():
    policy = live_policy(Reader(), {}, content(), Words(), batch_sizes=(1,))
    # 16 pixels of 32 are left, so the focal length is halved; the wrist has no matrix.
    expected = [2.0, 16.0, 1.0]
    np.testing.assert_allclose(policy.infer(observe(), "go")[0], expected)
    schema = policy.schema
    assert schema.depth == ("primary",)
    assert schema.matrices == ("extrinsics/primary", "intrinsics/primary")
    weights = {"params/unused": np.zeros(1, np.float32)}
    forward = make_forward(Reader(), content())
    program, facts = export_program(forward, weights, schema, ["cpu"])
    predict = load_program(program, weights, schema, facts)
    row = policy.row([schema.check(observe())], "go")
    actions = predict({key: np.asarray(value)[None] for key, value in row.items()})
    np.testing.assert_allclose(actions[0, 0], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": {}}, r"camera 'primary' in 'depth'; the observation has \[\]"),
        ({"depth": {"primary": np.zeros((4, 4), np.uint16)}}, "uint16 .*in metres"),
        ({"depth": {"primary": np.full((4, 4), np.nan)}}, "0 stands for unknown"),
        ({"camera": {"primary": {}}}, r"needs 'extrinsics' \(4, 4\)"),
        ({"camera": 3}, "'camera' is a int; expected a map"),
        ({"proprio": None}, r"proprio has shape \(\)"),
    ],
)
def test_what_lacks_is_named(changes, message):
    schema = Schema.from_metadata(content())
    with pytest.raises(ValueError, match=message):
        schema.check(observe(**changes))


def test_a_schema_survives_json_and_later_fields():
    schema = Schema.from_metadata(content())
    text = json.dumps({**schema.to_json(), "invented_later": 1})
    assert Schema.from_json(json.loads(text)) == schema
    with pytest.raises(ValueError, match="chunk"):
        Schema.from_json({"dataset": "x"})


def test_a_robot_without_a_camera_is_not_asked_for_it():
    entry = {**metadata()["datasets"][0], "cameras": ["primary"]}
    schema = Schema.from_metadata({**metadata(), "datasets": [entry]})
    assert schema.cameras == ("primary",)
    assert "image/wrist" not in schema.input_shapes()


def test_metadata_of_data_without_depth_stay_as_they_were(tmp_path):
    source = open_source(fake.data_config(fake.write_dataset(tmp_path)))
    assert not {"depth", "depth_cameras", "camera_matrices"} & set(source.metadata())
