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
