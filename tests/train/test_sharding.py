"""The mesh, and where the leaves of a state lie on it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from tests.train import toy
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.sharding import (
    batch_sharding,
    bytes_per_device,
    make_mesh,
    state_sharding,
)
from vla_jax.train.step import init_state, train_step


def make_state(params, codebook=()):
    variables = {"params": params, "codebook": dict(codebook)}
    optimizer = make_optimizer(variables, 10, learning_rate=0.1)
    return optimizer, init_state(optimizer, variables, ema=True)


def test_the_data_axis_takes_the_devices_that_are_left():
    assert dict(make_mesh().shape) == {"replica": 1, "data": 2, "fsdp": 1, "tensor": 1}
    assert make_mesh({"fsdp": 2}).shape["data"] == 1
    assert make_mesh({"fsdp": -1}).shape["fsdp"] == 2
    assert make_mesh(devices=jax.devices()[:1]).shape["data"] == 1
    assert make_mesh().axis_types == (AxisType.Auto,) * 4


@pytest.mark.parametrize(
    "axes, message",
    [
        ({"model": 2}, "Unknown mesh axis 'model'; choose one of ['data', 'fsdp'"),
        ({"fsdp": 3}, "does not fit 2 devices"),
        ({"data": -1, "fsdp": -1}, "at most one of them may be -1"),
        ({"data": 0}, "does not fit 2 devices"),
        ({"data": 1}, "does not fit 2 devices"),
    ],
)
def test_an_impossible_mesh_is_an_error(axes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_mesh(axes)


def test_a_batch_that_the_devices_cannot_share_is_an_error():
    with pytest.raises(ValueError, match=r"batch_size is 3.*multiple of 2"):
        batch_sharding(make_mesh(), 3)
    with pytest.raises(ValueError, match=r"is 6.* 2 devices.*accumulate 2.*of 4"):
        batch_sharding(make_mesh(), 6, 2)


def test_large_arrays_are_split_along_their_largest_divisible_axis():
    params = {
        "large": jnp.zeros((256, 512)),
        "odd": jnp.zeros((257, 256)),
        "small": jnp.zeros((4, 4)),
    }
    _, state = make_state(params)
    specs = state_sharding(make_mesh({"fsdp": 2}), state).params
    assert specs["large"].spec == PartitionSpec(None, "fsdp")
    assert specs["odd"].spec == PartitionSpec(None, "fsdp")
    assert specs["small"].spec == PartitionSpec()
    assert state_sharding(make_mesh(), state).params["large"].spec == PartitionSpec()


def test_moments_and_average_lie_like_their_parameter():
    _, state = make_state({"a": {"kernel": jnp.zeros((256, 512))}})
    sharding = state_sharding(make_mesh({"fsdp": 2}), state)
    assert jax.tree.structure(sharding) == jax.tree.structure(state)
    placed = jax.tree.leaves(sharding.opt_state)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state)]
    assert shapes.count((256, 512)) == 2
    for place, shape in zip(placed, shapes, strict=True):
        expected = PartitionSpec(None, "fsdp") if shape else PartitionSpec()
        assert place.spec == expected
    assert sharding.ema_params["a"]["kernel"].spec == PartitionSpec(None, "fsdp")


def test_a_split_state_takes_its_share_of_the_memory():
    _, state = make_state({"kernel": jnp.zeros((256, 512))})
    full = bytes_per_device(state, state_sharding(make_mesh(), state))
    split = bytes_per_device(state, state_sharding(make_mesh({"fsdp": 2}), state))
    scalars = 4 * 4  # two counters of the state, two of the optimizer
    assert full - split == 4 * 256 * 512 * 4 // 2
    assert full == 4 * 256 * 512 * 4 + scalars


def test_a_rule_decides_before_the_default():
    _, state = make_state(
        {"a": jnp.zeros((256, 512)), "b": jnp.zeros((256, 512))},
        {"table": jnp.zeros((4, 2))},
    )
    mesh = make_mesh({"tensor": 2})
    rules = [["a", ["tensor"]], ["codebook", [None, ["fsdp", "tensor"]]]]
    sharding = state_sharding(mesh, state, rules)
    assert sharding.params["a"].spec == PartitionSpec("tensor")
    assert sharding.params["b"].spec == PartitionSpec()
    table = sharding.collections["codebook"]["table"]
    assert table.spec == PartitionSpec(None, ("fsdp", "tensor"))


@pytest.mark.parametrize(
    "rule, message",
    [
        (("c", ["tensor"]), "'c' in train.sharding matches no parameter"),
        (("a", ["model"]), "unknown mesh axis 'model'"),
        (("a", ["tensor"]), "of shape (3,) as ('tensor',), in [2] parts"),
        (("a", [None, None]), "of shape (3,)"),
    ],
)
def test_an_impossible_rule_is_an_error(rule, message):
    _, state = make_state({"a": jnp.zeros(3)})
    with pytest.raises(ValueError, match=re.escape(message)):
        state_sharding(make_mesh({"tensor": 2}), state, [rule])


def run_steps(axes, devices, accumulate):
    """Four steps of a model large enough to be split."""
    mesh = make_mesh(axes, devices)
    model = toy.Toy(width=2**14)
    batch = toy.make_batch(0)

    def variables(rng):
        params, noise, dropout = jax.random.split(rng, 3)
        rngs = {"params": params, "noise": noise, "dropout": dropout}
        return model.init(rngs, batch, train=True, method="loss")

    root = jax.random.key(0)
    # A large eps: without it Adam turns rounding of tiny gradients into whole steps.
    optimizer = make_optimizer(
        jax.eval_shape(variables, root), 4, learning_rate=1e-2, eps=1e-2
    )

    def create(rng):
        return init_state(optimizer, variables(rng), ema=True)

    sharding = state_sharding(mesh, jax.eval_shape(create, root))
    state = jax.jit(create, out_shardings=sharding)(root)
    step = jax.jit(
        functools.partial(
            train_step,
            model,
            optimizer,
            toy.no_augment,
            {},
            0.9,
            accumulate=accumulate,
        ),
        donate_argnums=0,
        out_shardings=(sharding, None),
    )
    losses = []
    for number in range(4):
        placed = jax.device_put(
            toy.make_batch(number), batch_sharding(mesh, 4, accumulate)
        )
        state, metrics = step(state, placed, root)
        losses.append(float(metrics["loss"]))
    return state, losses


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_devices_agree_with_one_on_the_data_and_the_fsdp_axis(accumulate):
    alone, losses = run_steps({}, jax.devices()[:1], accumulate)
    for axes in ({"data": 2}, {"fsdp": 2}):
        state, others = run_steps(axes, jax.devices(), accumulate)
        np.testing.assert_allclose(others, losses, rtol=1e-5)
        kernel = state.params["anchor"]["kernel"]
        rows = kernel.addressable_shards[0].data.shape[0]
        assert rows == (2**14 if "data" in axes else 2**13)
        for name in ("params", "ema_params", "collections", "opt_state"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
                getattr(state, name),
                getattr(alone, name),
            )
