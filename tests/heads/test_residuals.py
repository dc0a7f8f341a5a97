import jax.numpy as jnp
import numpy as np

from vla_jax.heads.residuals import chunk_norm, covariance_trace, flip_metrics

MASK = jnp.array([[[True, True], [True, False]], [[True, True], [True, False]]])


def test_norm_of_the_real_entries():
    chunk = jnp.array([[[3.0, 4.0], [12.0, 99.0]], [[0.0, 0.0], [2.0, jnp.nan]]])
    np.testing.assert_allclose(chunk_norm(chunk, MASK), [13.0, 2.0])


def test_trace_is_the_sum_of_the_unbiased_variances_of_the_entries():
    chunk = jnp.array([[[1.0, 0.0], [5.0, 9.0]], [[3.0, 0.0], [5.0, jnp.nan]]])
    # Variance of (1, 3) is 2; the others do not vary or are not real.
    np.testing.assert_allclose(covariance_trace(chunk, MASK), 2.0)
    np.testing.assert_allclose(covariance_trace(chunk[:1], MASK[:1]), 0.0)


def test_flips_are_counted_by_direction():
    action = jnp.array([[[1.0], [1.0], [0.0], [0.0], [0.0]]])
    anchor = jnp.array([[[0.2], [0.9], [0.3], [0.8], [0.3]]])
    final = jnp.array([[[0.6], [0.4], [0.6], [0.9], [0.6]]])
    mask = jnp.ones((1, 5, 1), bool).at[:, -1].set(False)
    metrics = flip_metrics(anchor, final, action, mask)
    assert {name: value.tolist() for name, value in metrics.items()} == {
        "gripper_wrong_to_right": [1.0],
        "gripper_right_to_wrong": [2.0],
        "anchor_gripper_error": [0.5],
        "gripper_error": [0.75],
    }
