"""Compute in bfloat16, and frozen parts kept in it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch, policy_config
from tests.train import toy
from vla_jax.models.build import build_model
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.paths import leaf_path
from vla_jax.train.step import init_state, init_variables, start_phase, train_step

METADATA = dict(chunk=2, action_dim=3, vocab_size=8)


def loss_of(config):
    model, batch, root = build_model(config, METADATA), make_batch(), jax.random.key(0)
    variables = jax.jit(functools.partial(init_variables, model, {}))(batch, root)
    apply = functools.partial(model.apply, train=False, method="loss")
    rngs = {"noise": root, "dropout": root}
    return variables, jax.jit(apply)(variables, batch, rngs=rngs)[0], model


def test_a_policy_computes_in_bfloat16_on_parameters_of_float32():
    _, exact, plain = loss_of(policy_config())
    config = {**policy_config(), "compute": dict(dtype="bfloat16")}
    variables, rough, model = loss_of(config)
    assert model.trunk.dtype == model.image["shared"].dtype == "bfloat16"
    assert plain.trunk.dtype == "float32"
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, rtol=2e-2)
    assert np.any(rough != exact)


def test_a_module_keeps_the_precision_that_it_names():
    config = policy_config()
    config["trunk"]["dtype"] = "float32"
    config["compute"] = dict(dtype="bfloat16", scan=True, remat="dots")
    model = build_model(config, METADATA, attention_kernel="xla")
    assert model.trunk.dtype == "float32" and model.text.dtype == "bfloat16"
    assert model.trunk.scan and model.text.remat == "dots"
    assert model.text.attention_kernel == "xla" and model.attention == ()


def test_an_unknown_way_to_compute_is_an_error():
    config = {**policy_config(), "compute": dict(dtyp="bfloat16")}
    with pytest.raises(ValueError, match=r"'dtyp' in config.model.compute; did you"):
        build_model(config, METADATA)


def dtypes(params):
    return {
        leaf_path(keys): leaf.dtype.name
        for keys, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf_path(keys).endswith("kernel")
    }


def test_frozen_parts_are_kept_in_bfloat16_until_they_train_again():
    model, batch, root = toy.Toy(), toy.make_batch(0), jax.random.key(0)
    variables = init_variables(model, {}, batch, root)
    first, second = (
        make_optimizer(variables, 1, freeze, learning_rate=0.1)
        for freeze in (("trunk",), ("anchor",))
    )
    state = init_state(first, variables, ema=True, frozen_dtype="bfloat16")
    expected = {
        "trunk/kernel": "bfloat16",
        "anchor/kernel": "float32",
        "residual/kernel": "float32",
    }
    assert dtypes(state.params) == dtypes(state.ema_params) == expected
    step = functools.partial(train_step, model, first, toy.no_augment, {}, 0.9)
    after, metrics = jax.jit(step)(state, batch, root)
    assert dtypes(after.params) == expected
    np.testing.assert_array_equal(
        after.params["trunk"]["kernel"], state.params["trunk"]["kernel"]
    )
    assert np.isfinite(metrics["loss"])
    after = start_phase(second, after, ema=True, frozen_dtype="bfloat16")
    assert dtypes(after.params) == {
        "trunk/kernel": "float32",
        "anchor/kernel": "bfloat16",
        "residual/kernel": "float32",
    }
    np.testing.assert_array_equal(
        after.params["trunk"]["kernel"],
        state.params["trunk"]["kernel"].astype(jnp.float32),
    )
