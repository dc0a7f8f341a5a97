"""Scanned and rematerialized stacks against plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.layers import stack_layers, unstack_layers
from vla_jax.models.transformer import Transformer

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((2, 3, 4)), jnp.float32)
MASK = jnp.asarray(np.tril(np.ones((1, 3, 3), bool)))
PLAIN = Transformer(num_layers=2, num_heads=2, mlp_width=8)


@pytest.fixture(scope="module")
def params():
    params = PLAIN.init(jax.random.key(0), X, MASK, train=False)["params"]
    # Biases and scales that are not all alike.
    leaves, tree = jax.tree.flatten(params)
    noise = [0.1 * RNG.standard_normal(leaf.shape) for leaf in leaves]
    return jax.tree.unflatten(
        tree, [x + np.float32(n) for x, n in zip(leaves, noise, strict=True)]
    )


def value_and_gradient(model, params):
    def loss(params):
        return jnp.sum(jnp.sin(model.apply({"params": params}, X, MASK, train=False)))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def expected(params):
    return value_and_gradient(PLAIN, params)


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found,
        expected,
    )


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_a_scanned_stack_equals_single_layers(params, expected, remat):
    model = PLAIN.clone(scan=True, remat=remat)
    stacked = stack_layers(params)
    assert stacked["layers"]["attention"]["q"]["kernel"].shape == (2, 4, 2, 2)
    value, gradient = value_and_gradient(model, stacked)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    assert_close(unstack_layers(gradient), expected[1])


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_what_is_computed_again_is_the_same(params, expected, remat):
    assert_close(value_and_gradient(PLAIN.clone(remat=remat), params), expected)


def test_a_scanned_stack_is_drawn_with_its_own_layers():
    model = PLAIN.clone(scan=True)
    params = model.init(jax.random.key(0), X, MASK, train=False)["params"]
    assert sorted(params) == ["layers", "norm"]
    kernel = params["layers"]["mlp_in"]["kernel"]
    assert kernel.shape == (2, 4, 8)
    assert np.abs(kernel[0] - kernel[1]).max() > 0.1
    single = PLAIN.init(jax.random.key(0), X, MASK, train=False)["params"]
    assert jax.tree.structure(unstack_layers(params)) == jax.tree.structure(single)


def test_dropout_differs_from_layer_to_layer_and_runs_again_alike():
    model = Transformer(2, 2, 8, dropout=0.5, scan=True, remat="full")
    params = model.init(jax.random.key(0), X, MASK, train=False)

    def run(key):
        rngs = {"dropout": jax.random.key(key)}
        return model.apply(params, X, MASK, train=True, rngs=rngs)

    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 0.1


def test_stacking_and_unstacking_return_what_they_got(params):
    tree = {"trunk": params, "head": {"kernel": np.ones(2)}}
    back = unstack_layers(stack_layers(tree))
    jax.tree.map(np.testing.assert_array_equal, back, tree)
    assert isinstance(
        stack_layers({"layer_0": {"x": np.ones(1)}})["layers"]["x"], np.ndarray
    )


@pytest.mark.parametrize(
    "params, message",
    [
        ({"layer_1": {"x": np.ones(1)}}, r"Layers \[1\] .* expected 0 to 0"),
        ({"layer_0": {"x": np.ones(1)}, "layers": {}}, "do not make a stack"),
        (
            {"layer_0": {"x": np.ones(1)}, "layer_1": {"x": np.ones(2)}},
            "different shapes cannot be scanned",
        ),
    ],
)
def test_layers_that_make_no_stack_are_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        stack_layers(params)


def test_an_unknown_remat_lists_the_known_ones():
    model = PLAIN.clone(remat="dot")
    with pytest.raises(ValueError, match="Unknown remat 'dot'; did you mean 'dots'"):
        model.init(jax.random.key(0), X, MASK, train=False)
