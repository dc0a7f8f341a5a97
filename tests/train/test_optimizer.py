"""The optimizer: what is frozen, decayed, scaled and scheduled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vla_jax.train.optimizer import make_optimizer, make_schedule
from vla_jax.train.paths import leaf_paths


def variables():
    return {
        "params": {
            "trunk": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
            "head": {
                "anchor": {"kernel": jnp.ones((3, 2))},
                "anchor_norm": {"scale": jnp.ones(3)},
            },
        },
        "codebook": {"table": jnp.ones((4, 3))},
    }


def one_update(optimizer, gradient):
    params = variables()["params"]
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return updates


def test_frozen_parts_have_no_optimizer_state():
    everything = make_optimizer(variables(), 10, learning_rate=0.1)
    frozen = make_optimizer(variables(), 10, ["trunk"], learning_rate=0.1)
    params = variables()["params"]

    def moments(optimizer):
        return [p for p in leaf_paths(optimizer.init(params)) if "trunk" in p]

    assert len(moments(everything)) == 4  # two moments of kernel and bias
    assert moments(frozen) == []


def test_a_pattern_names_whole_path_components():
    optimizer = make_optimizer(variables(), 10, ["head/anchor"], learning_rate=0.1)
    assert optimizer.frozen("head/anchor/kernel")
    assert not optimizer.frozen("head/anchor_norm/scale")
    assert not optimizer.frozen("trunk/kernel")


def test_all_but_one_part_can_be_frozen():
    optimizer = make_optimizer(variables(), 10, ["(?!trunk).*"], learning_rate=0.1)
    assert not optimizer.frozen("trunk/bias")
    assert optimizer.frozen("head/anchor_norm/scale")


def test_a_pattern_without_match_is_an_error_that_lists_the_modules():
    with pytest.raises(ValueError, match=r"'hed'.*freeze.*'head/anchor'.*'trunk/bias'"):
        make_optimizer(variables(), 10, ["hed"], learning_rate=0.1)
    with pytest.raises(ValueError, match="learning_rate_scale"):
        make_optimizer(
            variables(), 10, learning_rate=0.1, learning_rate_scale={"hed": 0.1}
        )
    with pytest.raises(ValueError, match="not a regular expression"):
        make_optimizer(variables(), 10, ["("], learning_rate=0.1)


def test_freezing_everything_is_an_error():
    with pytest.raises(ValueError, match="leaves no parameter to train"):
        make_optimizer(variables(), 10, [".*"], learning_rate=0.1)


def test_another_collection_can_be_frozen():
    optimizer = make_optimizer(variables(), 10, ["codebook"], learning_rate=0.1)
    assert optimizer.frozen("codebook/table")


def test_adam_moves_by_the_learning_rate_times_the_scale_of_the_path():
    optimizer = make_optimizer(
        variables(),
        10,
        learning_rate=0.1,
        schedule="constant",
        learning_rate_scale=(("trunk/bias", 0.0), ("trunk", 0.5)),
    )
    gradient = jax.tree.map(jnp.ones_like, variables()["params"])
    updates = one_update(optimizer, gradient)
    np.testing.assert_allclose(updates["head"]["anchor"]["kernel"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(updates["trunk"]["kernel"], -0.05, rtol=1e-4)
    np.testing.assert_array_equal(updates["trunk"]["bias"], 0.0)  # the first counts


def test_only_matrices_are_decayed():
    optimizer = make_optimizer(
        variables(),
        10,
        learning_rate=0.1,
        schedule="constant",
        weight_decay=0.5,
        no_decay=["trunk"],
    )
    gradient = jax.tree.map(jnp.zeros_like, variables()["params"])
    updates = one_update(optimizer, gradient)
    np.testing.assert_allclose(updates["head"]["anchor"]["kernel"], -0.05)
    np.testing.assert_array_equal(updates["head"]["anchor_norm"]["scale"], 0.0)
    np.testing.assert_array_equal(updates["trunk"]["kernel"], 0.0)


def test_frozen_gradients_do_not_count_for_the_clipping():
    optimizer = make_optimizer(
        variables(), 10, ["trunk"], learning_rate=1.0, schedule="constant", eps=1.0
    )
    gradient = jax.tree.map(jnp.zeros_like, variables()["params"])
    gradient["trunk"]["kernel"] = jnp.full((2, 3), 1e6)
    gradient["head"]["anchor"]["kernel"] = jnp.full((3, 2), 0.1)
    updates = one_update(optimizer, gradient)
    # 0.1 unclipped: Adam's first update is gradient / (|gradient| + eps).
    expected = -0.1 / 1.1
    np.testing.assert_allclose(updates["head"]["anchor"]["kernel"], expected, rtol=1e-5)


def test_gradients_are_clipped_by_their_global_norm():
    optimizer = make_optimizer(
        variables(), 10, learning_rate=1.0, schedule="constant", eps=1.0, clip_norm=0.5
    )
    gradient = jax.tree.map(jnp.zeros_like, variables()["params"])
    gradient["trunk"]["bias"] = jnp.array([3.0, 0.0, 4.0])
    clipped = np.array([0.3, 0.0, 0.4])
    updates = one_update(optimizer, gradient)
    np.testing.assert_allclose(
        updates["trunk"]["bias"], -clipped / (clipped + 1), rtol=1e-5
    )


@pytest.mark.parametrize(
    "name, expected",
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (
            "cosine",
            [0.5, 1.0, 1.0, 0.1 + 0.9 * 0.853553, 0.55, 0.1 + 0.9 * 0.146447, 0.1],
        ),
        (
            "rsqrt",
            [0.5, 1.0, (2 / 3) ** 0.5, (2 / 4) ** 0.5, (2 / 5) ** 0.5, (2 / 6) ** 0.5],
        ),
    ],
)
def test_schedules_value_by_value(name, expected):
    schedule = make_schedule(
        name, learning_rate=2.0, warmup_steps=2, num_steps=6, final_scale=0.1
    )
    values = [schedule(step) / 2.0 for step in range(len(expected))]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_an_unknown_schedule_lists_the_alternatives():
    with pytest.raises(ValueError, match=r"'cosin'.*'constant', 'cosine', 'rsqrt'"):
        make_optimizer(variables(), 10, learning_rate=0.1, schedule="cosin")


def test_the_logged_learning_rate_is_the_one_that_is_used():
    optimizer = make_optimizer(
        variables(), 4, learning_rate=0.1, warmup_steps=2, clip_norm=None
    )
    params = variables()["params"]
    state = optimizer.init(params)
    gradient = jax.tree.map(jnp.ones_like, params)
    for step in range(4):
        updates, state = optimizer.update(gradient, state, params)
        rate = optimizer.learning_rate(jnp.int32(step))
        np.testing.assert_allclose(-updates["trunk"]["bias"], rate, rtol=1e-4)
    assert float(optax.global_norm(updates)) > 0
