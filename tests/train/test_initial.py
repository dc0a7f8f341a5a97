"""Starting from the weights of another run, part by part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.lora import make_lora, merge
from vla_jax.train.checkpoint import Checkpointer, write_description
from vla_jax.train.config import TRAIN_DEFAULTS
from vla_jax.train.initial import load_initial
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.sharding import make_mesh, state_sharding
from vla_jax.train.step import init_state


def numbers(*shape, start=0):
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


SAVED = {
    "trunk": {"layer_0": {"x": numbers(2)}, "layer_1": {"x": numbers(2, start=5)}},
    "head": {"kernel": numbers(2, 3), "bias": numbers(3)},
    "old": {"x": numbers(4)},
}


def make_state(params, *, ema=True, **collections):
    variables = {"params": jax.tree.map(jnp.asarray, params), **collections}
    optimizer = make_optimizer(variables, 1, learning_rate=0.1)
    state = init_state(optimizer, variables, ema=ema)
    sharding = state_sharding(make_mesh({"fsdp": 2}), state, min_size=1)
    return jax.device_put(state, sharding), sharding


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose average is its parameters plus 100."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    write_description(folder, config={"model": {}}, metadata={}, tokenizer=None)
    state, _ = make_state(SAVED, codebook={"table": jnp.ones((3, 2))})
    average = jax.tree.map(lambda x: x + 100, state.params)
    with Checkpointer(folder) as checkpoints:
        checkpoints.save(4, state, {})
        checkpoints.save(6, state.replace(ema_params=average), {})
    return folder.parent


def settings(folder, **options):
    options = {f"initial_{key}": value for key, value in options.items()}
    return {**TRAIN_DEFAULTS, "initial_checkpoint": str(folder), **options}


def zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def test_everything_of_the_same_name_and_shape_is_loaded_where_it_belongs(folder):
    state, sharding = make_state(
        zeros({**SAVED, "new": numbers(2)}), codebook={"table": jnp.zeros((3, 2))}
    )
    state, report = load_initial(state, sharding, settings(folder, step=4))
    jax.tree.map(
        np.testing.assert_array_equal,
        state.params,
        {**SAVED, "new": np.zeros(2)},
    )
    np.testing.assert_array_equal(state.collections["codebook"]["table"], 1)
    jax.tree.map(np.testing.assert_array_equal, state.ema_params, state.params)
    placed = jax.tree.map(lambda leaf: leaf.sharding, state)
    assert placed == sharding
    assert report.missing == ["new"] and len(report.loaded) == 6
    assert "1 kept as drawn, not in the checkpoint: new" in str(report)


def test_the_latest_average_is_taken_unless_told_otherwise(folder):
    for ema, expected in ((True, 100), (False, 0)):
        state, sharding = make_state(zeros({"old": SAVED["old"]}), ema=False)
        state, report = load_initial(state, sharding, settings(folder, ema=ema))
        np.testing.assert_array_equal(state.params["old"]["x"], numbers(4) + expected)
        assert state.ema_params is None
        assert "codebook/table" in report.unused


def test_patterns_choose_and_names_are_mapped(folder):
    params = {"policy": SAVED, "head": {"kernel": np.zeros((2, 3), np.float32)}}
    state, sharding = make_state(zeros(params))
    state, report = load_initial(
        state,
        sharding,
        settings(
            folder,
            step=4,
            include=["policy"],
            exclude=["policy/trunk/layer_1"],
            rename=[["(trunk|head)", r"policy/\1"]],
        ),
    )
    assert report.loaded == [
        "policy/head/bias",
        "policy/head/kernel",
        "policy/trunk/layer_0/x",
    ]
    assert report.kept == ["head/kernel", "policy/trunk/layer_1/x"]
    assert report.missing == ["policy/old/x"]
    np.testing.assert_array_equal(state.params["policy"]["head"]["bias"], numbers(3))


def test_another_shape_is_reported_and_stays_as_drawn(folder):
    state, sharding = make_state(
        {"head": {"kernel": np.full((2, 4), 7, np.float32), "bias": numbers(3)}}
    )
    state, report = load_initial(state, sharding, settings(folder, step=4))
    assert report.misshaped == ["head/kernel: (2, 3) there, (2, 4) here"]
    assert "1 kept as drawn, of another shape: head/kernel: (2, 3)" in str(report)
    np.testing.assert_array_equal(state.params["head"]["kernel"], 7)


def test_single_layers_are_stacked_for_a_scan_and_back(folder, tmp_path):
    stacked = {"trunk": {"layers": {"x": np.zeros((2, 2), np.float32)}}}
    state, sharding = make_state(stacked)
    state, report = load_initial(state, sharding, settings(folder, step=4))
    expected = [numbers(2), numbers(2, start=5)]
    np.testing.assert_array_equal(state.params["trunk"]["layers"]["x"], expected)
    assert not any("trunk" in path for path in report.unused)
    write_description(tmp_path, config={"model": {}}, metadata={}, tokenizer=None)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    state, sharding = make_state(zeros({"trunk": SAVED["trunk"]}))
    state, report = load_initial(state, sharding, settings(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, state.params["trunk"], SAVED["trunk"])


def test_adapters_are_merged_where_the_model_has_none(tmp_path):
    fields = dict(rank=1, alpha=2.0, targets=["head/kernel"])
    params = {
        "head": {"kernel": numbers(2, 3)},
        "lora": {"head": {"kernel": {"a": numbers(2, 1), "b": numbers(1, 3)}}},
    }
    config = {"model": {"lora": fields}}
    write_description(tmp_path, config=config, metadata={}, tokenizer=None)
    with Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(params)[0], {})
    state, sharding = make_state(zeros({"head": params["head"]}))
    state, _ = load_initial(state, sharding, settings(tmp_path))
    expected = merge(make_lora(fields), params)["head"]["kernel"]
    np.testing.assert_array_equal(state.params["head"]["kernel"], expected)
    np.testing.assert_array_equal(expected[1], numbers(2, 3)[1] + [0, 2, 4])
    # A model with adapters of its own takes base and adapters.
    state, sharding = make_state(zeros(params))
    state, report = load_initial(state, sharding, settings(tmp_path))
    assert len(report.loaded) == 3
    jax.tree.map(np.testing.assert_array_equal, state.params, params)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(include=["nose"]), "'nose' in train.initial_include matches no param"),
        (dict(exclude=["nose"]), "'nose' in train.initial_exclude matches no param"),
        (dict(rename=[["nose", "ear"]]), "'nose' in train.initial_rename matches no"),
        (dict(rename=[["(head|old)/(kernel|x)", "y"]]), "several arrays the same name"),
        (dict(rename=[["old", "older"]]), "Nothing of train.initial_checkpoint="),
    ],
)
def test_what_cannot_be_meant_is_an_error(folder, options, message):
    state, sharding = make_state(zeros({"old": SAVED["old"]}))
    with pytest.raises(ValueError, match=message):
        load_initial(state, sharding, settings(folder, **options))
