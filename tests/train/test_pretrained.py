"""Weights of other projects in a new model."""

import functools

import jax
import numpy as np
import pytest

from tests.fake_batch import make_batch, policy_config
from tests.models.test_resnet_weights import state_dict, write
from vla_jax.models.build import build
from vla_jax.models.resnet import ResNet
from vla_jax.models.resnet_weights import load_resnet
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.pretrained import load_pretrained
from vla_jax.train.sharding import make_mesh, state_sharding
from vla_jax.train.step import init_state, init_variables


@pytest.fixture(scope="module")
def start():
    """A policy with a ResNet, its state of zeros, and where that lies."""
    config = policy_config()
    encoder = dict(name="resnet", width=16, last="layer1")
    config |= dict(
        image=dict(shared=encoder),
        tokens=dict(shared=dict(name="grid", level="layer1", width=8)),
    )
    model = build(config)
    draw = functools.partial(init_variables, model, {})
    shapes = jax.eval_shape(draw, make_batch(), jax.random.key(0))
    optimizer = make_optimizer(shapes, 10, learning_rate=1.0)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = init_state(optimizer, zeros, ema=True)
    sharding = state_sharding(make_mesh({}), state, ())
    return model, jax.tree.map(jax.device_put, state, sharding), sharding


def test_parameters_average_and_constants_come_from_the_file(start, tmp_path):
    model, state, sharding = start
    path = write(tmp_path / "resnet.pth", state_dict())
    settings = dict(image_shared=dict(kind="resnet", path=str(path)))
    loaded = load_pretrained(model, state, sharding, settings)
    expected = load_resnet(ResNet(width=16, last="layer1"), path)
    for tree, name in (
        (loaded.params, "params"),
        (loaded.ema_params, "params"),
        (loaded.collections["constants"], "constants"),
    ):
        jax.tree.map(
            np.testing.assert_array_equal, tree["image_shared"], expected[name]
        )
    np.testing.assert_array_equal(
        loaded.params["head"]["hidden"]["bias"], state.params["head"]["hidden"]["bias"]
    )
    assert jax.tree.map(lambda x: x.sharding, loaded) == jax.tree.map(
        lambda x: x.sharding, state
    )


def test_an_empty_path_loads_nothing(start):
    settings = dict(image_shared=dict(kind="resnet", path=""))
    assert load_pretrained(*start, settings) is start[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(image=dict(kind="resnet", path="a")),
            "Unknown part in train.load.image;",
        ),
        (dict(image_shared=dict(kind="vit", path="a")), "Unknown kind 'vit'"),
        (
            dict(image_shared=dict(kind="resnet")),
            r"train.load.image_shared lacks \['path",
        ),
        (dict(image_shared=dict(kind="resnet", path="a.pth")), "no weight file a.pth"),
    ],
)
def test_what_cannot_be_loaded_is_named(start, settings, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained(*start, settings)
