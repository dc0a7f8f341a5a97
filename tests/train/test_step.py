"""One training step: randomness, averages, frozen parts, collections, metrics."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import toy
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.step import (
    eval_step,
    init_state,
    init_variables,
    start_phase,
    train_step,
)

ROOT = jax.random.key(0)


@functools.cache
def build(freeze, weights, ema_decay, exact):
    """Optimizer and compiled functions; compiling is nearly all of the time."""
    model = toy.Toy(noise=0.0, dropout=0.0) if exact else toy.Toy()
    draw = functools.partial(init_variables, model, dict(weights))
    shapes = jax.eval_shape(draw, toy.make_batch(0), ROOT)
    optimizer = make_optimizer(shapes, 100, freeze, learning_rate=0.1, weight_decay=0.1)
    step = functools.partial(
        train_step, model, optimizer, toy.no_augment, dict(weights), ema_decay
    )
    create = jax.jit(
        lambda batch: init_state(optimizer, draw(batch, ROOT), ema=ema_decay > 0)
    )
    return optimizer, create, jax.jit(step, donate_argnums=0)


def make(freeze=(), *, weights=(), ema_decay=0.9, exact=False):
    """Optimizer, state and step; `exact` is the toy without noise and dropout."""
    optimizer, create, step = build(tuple(freeze), weights, ema_decay, exact)
    return optimizer, create(toy.make_batch(0)), step


def copy(tree):
    return jax.tree.map(np.array, tree)


def test_the_loss_falls_on_one_repeated_batch():
    _, state, step = make(exact=True)
    losses = []
    for _ in range(30):
        state, metrics = step(state, toy.make_batch(0), ROOT)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.1 * losses[0]
    assert int(state.step) == int(state.phase_step) == 30


def test_a_step_depends_on_its_number_and_the_root_key_alone():
    _, state, step = make()
    state, first = step(state, toy.make_batch(0), ROOT)
    saved = copy(state)
    again, second = step(state, toy.make_batch(0), ROOT)
    _, repeated = step(jax.device_put(saved), toy.make_batch(0), ROOT)
    assert float(second["loss"]) == float(repeated["loss"])
    assert float(first["loss"]) != float(second["loss"])
    del again


def test_frozen_parts_keep_every_bit_in_params_average_and_collections():
    _, state, step = make(["trunk", "anchor/kernel", "codebook"])
    params = state.params
    params["trunk"]["bias"] = jnp.full_like(params["trunk"]["bias"], -0.0)
    state = state.replace(params=params, ema_params=jax.tree.map(jnp.copy, params))
    before = copy(state)
    for number in range(3):
        state, _ = step(state, toy.make_batch(number), ROOT)
    for tree in (state.params, state.ema_params):
        chex.assert_trees_all_equal(tree["trunk"], before.params["trunk"])
        assert np.all(np.signbit(tree["trunk"]["bias"]))
        chex.assert_trees_all_equal(
            tree["anchor"]["kernel"], before.params["anchor"]["kernel"]
        )
        assert np.any(tree["anchor"]["bias"] != before.params["anchor"]["bias"])
        assert np.any(tree["residual"]["kernel"] != before.params["residual"]["kernel"])
    chex.assert_trees_all_equal(state.collections, before.collections)


def test_collections_are_carried_and_updated():
    _, state, step = make()
    np.testing.assert_array_equal(state.collections["codebook"]["mean"], np.zeros(8))
    state, _ = step(state, toy.make_batch(0), ROOT)
    assert np.any(state.collections["codebook"]["mean"] != 0)


def test_the_average_follows_the_parameters_with_a_warm_up():
    _, state, step = make(ema_decay=0.15)
    old = copy(state.ema_params)["trunk"]["kernel"]
    for decay in (1 / 10, 0.15):  # (1 + n) / (10 + n), at most 0.15
        state, _ = step(state, toy.make_batch(0), ROOT)
        new = np.array(state.params["trunk"]["kernel"])
        old = old + (1 - decay) * (new - old)
        np.testing.assert_allclose(state.ema_params["trunk"]["kernel"], old, rtol=1e-5)


def test_without_a_decay_no_average_is_kept():
    _, state, step = make(ema_decay=0.0)
    state, _ = step(state, toy.make_batch(0), ROOT)
    assert state.ema_params is None


def test_a_new_phase_keeps_params_and_collections_and_starts_the_rest_anew():
    optimizer, state, step = make()
    for number in range(2):
        state, _ = step(state, toy.make_batch(number), ROOT)
    before = copy(state)
    state = jax.jit(functools.partial(start_phase, optimizer, ema=True))(state)
    chex.assert_trees_all_equal(state.params, before.params)
    chex.assert_trees_all_equal(state.collections, before.collections)
    chex.assert_trees_all_equal(state.ema_params, before.params)
    chex.assert_trees_all_equal(state.opt_state, optimizer.init(before.params))
    assert (int(state.step), int(state.phase_step)) == (2, 0)
    # Parameters and average are arrays of their own, or they could not be donated.
    state, _ = step(state, toy.make_batch(2), ROOT)
    assert int(state.step) == 3


def test_the_weights_of_a_phase_reach_the_model():
    _, state, step = make(weights=(("anchor", 0.0), ("residual", 2.0)))
    _, metrics = step(state, toy.make_batch(0), ROOT)
    np.testing.assert_allclose(metrics["loss"], 2 * metrics["fine"], rtol=1e-6)


def test_metrics_are_scalars_with_the_norms_and_the_learning_rate():
    optimizer, state, step = make()
    _, metrics = step(state, toy.make_batch(0), ROOT)
    assert set(metrics) == {
        "rough",
        "fine",
        "loss",
        "gradient_norm",
        "parameter_norm",
        "learning_rate",
        "nonfinite",
    }
    assert all(value.shape == () for value in metrics.values())
    assert float(metrics["learning_rate"]) == float(optimizer.learning_rate(0))
    assert not metrics["nonfinite"]


def test_a_loss_that_is_not_finite_raises_the_flag():
    _, state, step = make()
    batch = toy.make_batch(0)
    batch.observation.proprio[0] = np.nan
    _, metrics = step(state, batch, ROOT)
    assert metrics["nonfinite"]


def test_a_frozen_part_gets_no_gradient():
    _, state, step = make(["trunk"], exact=True)
    _, frozen = step(state, toy.make_batch(0), ROOT)
    _, state, step = make(exact=True)
    _, free = step(state, toy.make_batch(0), ROOT)
    assert 0 < float(frozen["gradient_norm"]) < float(free["gradient_norm"])


def test_every_step_augments_with_draws_of_its_own():
    def augment(rng, batch):
        return batch.replace(action=jax.random.uniform(rng, batch.action.shape))

    model = toy.Toy(noise=0.0, dropout=0.0)
    _, create, _ = build((), (), 0.9, True)
    state = create(toy.make_batch(0))
    optimizer = make_optimizer({"params": state.params}, 2, learning_rate=0.0)
    step = jax.jit(functools.partial(train_step, model, optimizer, augment, {}, 0.0))
    state, first = step(state, toy.make_batch(0), ROOT)
    _, second = step(state, toy.make_batch(0), ROOT)
    assert float(first["loss"]) != float(second["loss"])


def test_evaluation_changes_with_the_batch_number_and_not_with_the_step():
    _, state, _ = make()
    run = jax.jit(functools.partial(eval_step, toy.Toy(), {}))
    run = functools.partial(run, state.params, state.collections)
    first = run(toy.make_batch(0), ROOT, 0)
    assert float(run(toy.make_batch(0), ROOT, 0)["loss"]) == float(first["loss"])
    assert float(run(toy.make_batch(0), ROOT, 1)["loss"]) != float(first["loss"])
    assert first["fine"].shape == ()


def test_micro_batches_make_the_update_of_the_whole_batch():
    optimizer, whole, step = make(exact=True)
    split = jax.tree.map(jnp.copy, whole)
    micro = functools.partial(
        train_step, toy.Toy(noise=0.0, dropout=0.0), optimizer, toy.no_augment, {}, 0.9
    )
    micro = jax.jit(functools.partial(micro, accumulate=4))
    for number in range(2):
        batch = toy.make_batch(number, size=8)
        whole, expected = step(whole, batch, ROOT)
        split, metrics = micro(split, batch, ROOT)
        chex.assert_trees_all_close(metrics, expected, rtol=1e-4)
    chex.assert_trees_all_close(split.params, whole.params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(
        split.ema_params, whole.ema_params, rtol=1e-4, atol=1e-6
    )
    assert int(split.step) == 2


def test_micro_batches_draw_and_augment_one_by_one():
    optimizer, state, _ = make(exact=True)
    seen = []

    def augment(rng, batch):
        jax.debug.callback(
            lambda *x: seen.append(jax.tree.map(np.asarray, x)),
            jax.random.uniform(rng),
            batch.dataset,
        )
        return batch

    step = functools.partial(
        train_step, toy.Toy(), optimizer, augment, {}, 0.9, accumulate=2
    )
    batch = toy.make_batch(0).replace(dataset=np.arange(4, dtype=np.int32))
    jax.block_until_ready(jax.jit(step)(state, batch, ROOT))
    jax.effects_barrier()
    draws, rows = zip(*sorted(seen, key=lambda x: x[1][0]), strict=True)
    assert draws[0] != draws[1]
    np.testing.assert_array_equal(rows, [[0, 2], [1, 3]])


def test_micro_batches_update_collections_in_turn():
    optimizer, state, _ = make(exact=True)
    step = functools.partial(
        train_step,
        toy.Toy(noise=0.0, dropout=0.0),
        optimizer,
        toy.no_augment,
        {},
        0.9,
        accumulate=2,
    )
    batch = toy.make_batch(0)
    trunk = state.params["trunk"]
    features = batch.observation.proprio[:, -1] @ trunk["kernel"] + trunk["bias"][None]
    features = np.tanh(features)
    after, _ = jax.jit(step)(state, batch, ROOT)
    np.testing.assert_allclose(
        after.collections["codebook"]["mean"],
        0.9 * 0.1 * features[[0, 2]].mean(0) + 0.1 * features[[1, 3]].mean(0),
        rtol=1e-4,
        atol=1e-6,
    )


def test_micro_batches_leave_a_frozen_collection_alone_all_the_way():
    optimizer, state, _ = make(["codebook"], exact=True)
    before = copy(state)
    step = functools.partial(
        train_step, toy.Toy(), optimizer, toy.no_augment, {}, 0.9, accumulate=2
    )
    state, _ = jax.jit(step)(state, toy.make_batch(0), ROOT)
    chex.assert_trees_all_equal(state.collections, before.collections)


def test_a_batch_that_does_not_divide_names_both_numbers():
    optimizer, state, _ = make(exact=True)
    step = functools.partial(
        train_step, toy.Toy(), optimizer, toy.no_augment, {}, 0.9, accumulate=3
    )
    with pytest.raises(ValueError, match=r"batch of 4 .* train.accumulate=3 micro"):
        jax.jit(step)(state, toy.make_batch(0), ROOT)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_every_buffer_of_the_state_is_donated(decay):
    _, state, step = make(ema_decay=decay)
    compiled = step.lower(state, toy.make_batch(0), ROOT).compile()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert compiled.memory_analysis().alias_size_in_bytes == size
