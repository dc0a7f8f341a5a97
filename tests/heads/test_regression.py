import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.heads.base import masked_mean
from vla_jax.heads.regression import ELEMENT_LOSSES, RegressionHead
from vla_jax.types import Context


def context(value=1.0):
    return Context(observation=None, task=None, readout=jnp.full((1, 2, 4), value))


def test_masked_mean_ignores_nan_behind_the_mask():
    value = jnp.array([[1.0, 3.0, jnp.nan], [jnp.nan] * 3])
    mask = jnp.array([[True, True, False], [False] * 3])
    np.testing.assert_array_equal(masked_mean(value, mask), [2.0, 0.0])


@pytest.mark.parametrize(
    ("name", "expected"), [("l1", 2.0), ("smooth_l1", 1.5), ("mse", 4.0)]
)
def test_element_loss_of_an_error_of_two(name, expected):
    assert ELEMENT_LOSSES[name](jnp.array(-2.0)) == expected


def test_one_masked_dimension_does_not_change_the_loss():
    head = RegressionHead(chunk=1, action_dim=2, width=4)
    action = jnp.array([[[1.0, 50.0]]])
    mask = jnp.array([[[True, False]]])
    variables = head.init(
        jax.random.key(0), context(), action, mask, train=True, method="loss"
    )
    loss, _ = head.apply(variables, context(), action, mask, train=True, method="loss")
    prediction = head.apply(variables, context())
    np.testing.assert_allclose(loss, jnp.abs(prediction - action)[:, 0, 0])


def test_unknown_element_loss_lists_the_known():
    head = RegressionHead(chunk=1, action_dim=1, element_loss="l3")
    with pytest.raises(ValueError, match=r"'l3'.*\['l1', 'mse', 'smooth_l1'\]"):
        head.init(
            jax.random.key(0),
            context(),
            jnp.zeros((1, 1, 1)),
            jnp.ones((1, 1, 1), bool),
            train=True,
            method="loss",
        )


class Steps(nn.Module):
    """A decoder whose feature of action `i` is `i`."""

    def __call__(self, context, *, train):
        return jnp.arange(3.0)[None, :, None]


def test_a_decoder_gives_each_action_its_own_features():
    head = RegressionHead(chunk=3, action_dim=2, decoder=Steps())
    variables = head.init(jax.random.key(0), context())
    slope = head.apply(variables, context())[0, 1]
    np.testing.assert_allclose(
        head.apply(variables, context())[0], [0 * slope, slope, 2 * slope], rtol=1e-6
    )


def test_the_gripper_is_a_decision_of_its_own_loss():
    head = RegressionHead(
        chunk=1, action_dim=2, zero_init=True, gripper_dims=(1,), gripper_weight=0.5
    )
    action, mask = jnp.array([[[2.0, 1.0]]]), jnp.ones((1, 1, 2), bool)
    arguments = (context(), action, mask)
    variables = head.init(jax.random.key(0), *arguments, train=True, method="loss")
    loss, metrics = head.apply(variables, *arguments, train=True, method="loss")
    np.testing.assert_allclose(loss, [2.0 + 0.5 * np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(metrics["l1"], [2.0])
    raised = jax.tree.map(lambda x: x, variables)
    raised["params"]["action"]["bias"] = jnp.array([0.7, 0.1])
    chunk = head.apply(raised, context(), jax.random.key(0), method="sample")
    np.testing.assert_allclose(chunk, [[[0.7, 1.0]]])
