"""Checkpoints: what is restored equals what was saved, or the damage has a name."""

import functools
import json
import os
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.train.checkpoint import (
    Checkpointer,
    find_folder,
    restore_variables,
    saved_steps,
    write_description,
)
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.sharding import make_mesh, state_sharding
from vla_jax.train.step import init_state


def make_state(offset=0.0, *, ema=True, codebook=True, freeze=(), width=512):
    params = {
        "trunk": {"kernel": offset + jnp.arange(256.0 * width).reshape(256, width)},
        "head": {"bias": offset + jnp.arange(3.0)},
    }
    variables = {"params": params}
    if codebook:
        variables["codebook"] = {"table": offset + jnp.ones((2, 2), jnp.bfloat16)}
    optimizer = make_optimizer(variables, 10, freeze, learning_rate=0.1)
    state = init_state(optimizer, variables, ema=ema)
    return state.replace(
        step=jnp.int32(7),
        ema_params=jax.tree.map(lambda x: x + 1, params) if ema else None,
    )


def shapes(state, mesh=None):
    sharding = state_sharding(mesh or make_mesh(), state)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, sharding
    )


def describe(folder):
    write_description(folder, config={}, metadata={}, tokenizer=b"model")


@pytest.fixture
def three_steps(tmp_path):
    """A folder with steps 10, 20 and 30, and step 30 about to be damaged."""
    with Checkpointer(tmp_path) as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, make_state(step), dict(step=step))
    describe(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [dict(), dict(ema=False, codebook=False), dict(freeze=("trunk", "codebook"))],
)
def test_the_restored_state_equals_the_saved_state(tmp_path, options):
    state = make_state(**options)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(7, state, dict(step=7, phase=1))
        checkpoints.wait()
        assert checkpoints.position(7) == dict(step=7, phase=1)
        chex.assert_trees_all_equal(checkpoints.restore(7, shapes(state)), state)


def test_a_state_moves_to_another_mesh(tmp_path):
    state = make_state()
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(7, state, {})
        checkpoints.wait()
        restored = checkpoints.restore(7, shapes(state, make_mesh({"fsdp": 2})))
    kernel = restored.params["trunk"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (256, 256)
    chex.assert_trees_all_equal(restored, state)


def test_a_state_may_be_donated_as_soon_as_it_is_saved(tmp_path):
    state = make_state()
    saved = jax.tree.map(lambda x: np.array(x, copy=True), state)
    more = functools.partial(jax.tree.map, lambda x: x + jnp.ones_like(x))
    more = jax.jit(more, donate_argnums=0)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(7, state, {})
        for _ in range(3):
            state = more(state)
        checkpoints.wait()
        chex.assert_trees_all_equal(checkpoints.restore(7, shapes(state)), saved)


def test_the_latest_steps_and_the_named_ones_are_kept(tmp_path):
    small = make_state(width=1)
    with Checkpointer(tmp_path, keep=2, keep_steps=[2]) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, small, {})
        checkpoints.wait()
        assert checkpoints.steps() == [2, 4, 5]
        assert checkpoints.latest() == 5
        checkpoints.discard_after(2)
        assert checkpoints.steps() == [2]
        checkpoints.save(3, small, {})
    assert saved_steps(tmp_path) == [2, 3]


def test_weights_are_read_alone_and_on_any_mesh(tmp_path):
    describe(tmp_path / "checkpoints")
    state = make_state()
    state = jax.device_put(state, state_sharding(make_mesh({"fsdp": 2}), state))
    with Checkpointer(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(7, state, {})
    for folder in (tmp_path, tmp_path / "checkpoints"):
        variables = restore_variables(folder)
        chex.assert_trees_all_equal(
            variables["params"], jax.device_get(state.ema_params)
        )
        chex.assert_trees_all_equal(
            variables["codebook"], jax.device_get(state.collections["codebook"])
        )
        assert isinstance(variables["params"]["head"]["bias"], np.ndarray)
    variables = restore_variables(tmp_path, 7, ema=False)
    chex.assert_trees_all_equal(variables["params"], jax.device_get(state.params))


def test_without_an_average_the_parameters_are_read(tmp_path):
    describe(tmp_path)
    state = make_state(ema=False, codebook=False)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(7, state, {})
    expected = {"params": jax.device_get(state.params)}
    chex.assert_trees_all_equal(restore_variables(tmp_path), expected)


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=os.path.getsize)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "{} has [0-9]+ bytes instead of [0-9]+"),
        (flip, "the content of {} has changed"),
        (os.remove, "{} is missing"),
    ],
)
def test_a_damaged_file_is_named_with_the_steps_that_are_intact(
    three_steps, damage, message
):
    path = largest_file(three_steps / "30" / "ema_params")
    damage(path)
    message = message.format(re.escape(str(path)))
    message += r".*Intact steps: \[10, 20\]\..*--resume_step"
    state = make_state(30)
    with Checkpointer(three_steps) as checkpoints:
        with pytest.raises(ValueError, match=f"step 30 is damaged: {message}"):
            checkpoints.restore(30, shapes(state))
        chex.assert_trees_all_equal(
            checkpoints.restore(20, shapes(state)), make_state(20)
        )
    with pytest.raises(ValueError, match=message):
        restore_variables(three_steps)
    expected = jax.device_get(make_state(20).ema_params)
    chex.assert_trees_all_equal(restore_variables(three_steps, 20)["params"], expected)


def test_damage_of_the_optimizer_does_not_keep_from_serving(three_steps):
    truncate(largest_file(three_steps / "30" / "optimizer"))
    expected = jax.device_get(make_state(30).ema_params)
    chex.assert_trees_all_equal(restore_variables(three_steps)["params"], expected)
    with Checkpointer(three_steps) as checkpoints, pytest.raises(ValueError):
        checkpoints.position(30)


def test_an_unfinished_save_is_no_step(three_steps):
    os.rename(three_steps / "30", three_steps / "30.orbax-checkpoint-tmp")
    assert saved_steps(three_steps) == [10, 20]
    with Checkpointer(three_steps) as checkpoints:
        assert checkpoints.latest() == 20
        checkpoints.save(30, make_state(30), {})
        checkpoints.wait()
        chex.assert_trees_all_equal(
            checkpoints.restore(30, shapes(make_state())), make_state(30)
        )


def test_an_unknown_step_lists_the_saved_ones(three_steps):
    with pytest.raises(ValueError, match=r"no step 15; saved steps are \[10, 20, 30\]"):
        restore_variables(three_steps, 15)


def test_a_state_of_another_model_is_refused(three_steps):
    with Checkpointer(three_steps) as checkpoints:
        message = r"trunk/kernel: \(256, 512\) saved, \(256, 256\) now"
        with pytest.raises(ValueError, match=message):
            checkpoints.restore(30, shapes(make_state(width=256)))
        state = make_state()
        state.params["head"]["kernel"] = jnp.ones(2)
        with pytest.raises(ValueError, match=r"head/kernel: absent saved, \(2,\) now"):
            checkpoints.restore(30, shapes(state))


def test_a_state_with_parts_that_were_not_saved_is_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(7, make_state(ema=False), {})
        checkpoints.wait()
        with pytest.raises(ValueError, match=r"holds no \['ema_params'\]"):
            checkpoints.restore(7, shapes(make_state()))


def test_a_folder_without_checkpoint_lists_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"No checkpoint in .*\['notes.txt'\]"):
        find_folder(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        find_folder(tmp_path / "nowhere")
    describe(tmp_path)
    with pytest.raises(ValueError, match="no saved step yet"):
        restore_variables(tmp_path)


def test_the_description_stands_beside_the_steps(tmp_path):
    write_description(tmp_path, config={"a": 1}, metadata={"b": 2}, tokenizer=None)
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": 1}
    write_description(tmp_path, config={"a": 3}, metadata={"b": 2}, tokenizer=b"c")
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "metadata.json",
        "tokenizer.model",
    ]
