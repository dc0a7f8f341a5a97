import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.heads.gripper import (
    boundary_target,
    decide,
    decide_gripper,
    difference_target,
    gripper_loss,
    gripper_mask,
)


def test_truth_table_of_the_boundary_target():
    for probability, gripper, expected in [
        (0.2, 0.0, 0.0),  # closed, and the anchor says so
        (0.9, 1.0, 0.0),
        (0.2, 1.0, 0.3 + 0.1),  # over the boundary, and the margin
        (0.9, 0.0, -0.4 - 0.1),
        (0.5, 1.0, 0.1),  # undecided counts as closed
        (0.5, 0.0, 0.0),
    ]:
        target = boundary_target(jnp.float32(probability), jnp.float32(gripper), 0.1)
        np.testing.assert_allclose(target, expected, atol=1e-7)


@pytest.mark.parametrize("gripper", [0.0, 1.0])
def test_adding_the_target_decides_right_for_every_probability(gripper):
    probability = jnp.linspace(0.0, 1.0, 201)
    wanted = jnp.full_like(probability, gripper)
    target = boundary_target(probability, wanted, 0.1)
    np.testing.assert_array_equal(decide(probability + target), wanted)
    right = decide(probability) == wanted
    np.testing.assert_array_equal(target[right], 0)


def test_the_naive_target_is_what_is_missing_to_the_recorded_value():
    target = difference_target(jnp.float32(0.8), jnp.float32(1.0), 0.1)
    np.testing.assert_allclose(target, 0.2, rtol=1e-6)


def test_only_the_gripper_is_decided():
    chunk = jnp.array([[[0.7, 0.7], [0.2, 0.2]]])
    np.testing.assert_allclose(decide_gripper(chunk, (-1,)), [[[0.7, 1], [0.2, 0]]])
    np.testing.assert_array_equal(decide_gripper(chunk, ()), chunk)


def test_a_gripper_outside_of_the_action_is_refused():
    with pytest.raises(ValueError, match="has 3, but an action has 3 dimensions"):
        gripper_mask(3, (3,))


def test_cross_entropy_and_errors_over_real_gripper_entries():
    logit = jnp.array([[[9.0, 0.0], [9.0, 2.0], [9.0, 50.0]]])
    action = jnp.array([[[0.0, 1.0], [0.0, 0.2], [0.0, 0.0]]])
    mask = jnp.array([[[True, True], [True, True], [False, False]]])
    loss, metrics = gripper_loss(logit, action, mask, (1,))
    expected = (np.log(2) + np.log1p(np.exp(2.0))) / 2
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)
    # 0.5 counts as closed, so the first is wrong as well.
    np.testing.assert_array_equal(metrics["gripper_error"], [1.0])
