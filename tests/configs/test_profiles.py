"""The profiles of GR-1 and of the flow transformer, alone and under AnchorRefine."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import flow, gr1
from tests.fake_batch import make_batch
from vla_jax.models.build import build
from vla_jax.train.config import make_phases, resolve
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.paths import leaf_path
from vla_jax.train.refinement import add_refinement
from vla_jax.train.step import init_state, init_variables, train_step

CASES = [
    (module, words)
    for module in (gr1, flow)
    for words in ("small", "debug", "debug,refine", "refine")
]
# Compiling is most of the time of a step, and LLVM most of compiling.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def batch_for(config):
    """Two examples as the config's data section makes them."""
    head = config["model"]["head"]
    full = head.get("anchor", head)["action_dim"] == 7
    batch = make_batch(
        window=config["data"]["window"],
        chunk=config["data"]["chunk"],
        action_dim=7 if full else 4,
        proprio_dim=8 if full else 4,
        image_size=config["data"]["image_size"][0],
    )
    robot = jnp.zeros(2, jnp.int32)
    gripper = (batch.action[..., -1:] > 0).astype(batch.action.dtype)
    return batch.replace(
        observation=batch.observation.replace(embodiment=robot),
        action=batch.action.at[..., -1:].set(gripper),
    )


def shapes_of(config, batch):
    draw = functools.partial(init_variables, build(config["model"]), {})
    return jax.eval_shape(draw, batch, jax.random.key(0))


def sizes(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {leaf_path(keys): leaf.size for keys, leaf in leaves}


def optimizers(config, shapes):
    for phase in make_phases(config["train"]):
        fields = config["optimizer"] | dict(phase.optimizer)
        yield phase, make_optimizer(shapes, phase.steps, phase.freeze, **fields)


def step_of(config, phase, optimizer):
    def keep(rng, batch):
        return batch

    model = build(config["model"])
    return functools.partial(
        train_step, model, optimizer, keep, phase.loss_weights, 0.0
    )


@pytest.mark.parametrize(("module", "words"), CASES)
def test_every_phase_trains_its_part(module, words):
    config = resolve(module.get_config(words))
    shapes = shapes_of(config, batch_for(config))
    count = sizes(shapes["params"])
    names = []
    for phase, optimizer in optimizers(config, shapes):
        trained = {path for path in count if not optimizer.frozen(path)}
        refined = {path for path in trained if path.startswith("head/refine")}
        assert trained and refined == (trained if phase.name == "refine" else set())
        names.append(phase.name)
    assert names[1:] == ["refine"] * ("refine" in words)
    if words == "refine":  # as large as the paper's
        added = sum(n for path, n in count.items() if path.startswith("head/refine"))
        expected, digits = {gr1: (0.02, 2), flow: (0.2, 1)}[module]
        assert round(added / 1e9, digits) == expected


@pytest.mark.parametrize("module", [gr1, flow])
def test_each_phase_has_the_losses_of_its_part(module):
    config = resolve(module.get_config("debug,refine"))
    batch = batch_for(config)
    shapes = shapes_of(config, batch)
    for phase, optimizer in optimizers(config, shapes):
        make = functools.partial(init_state, optimizer, ema=False)
        step = step_of(config, phase, optimizer)
        state = jax.eval_shape(make, shapes)
        after, metrics = jax.eval_shape(step, state, batch, jax.random.key(0))
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        parts = {name.partition("/")[0] for name in metrics}
        assert parts & {"anchor", "refine"} == {phase.name}


@pytest.mark.parametrize("module", [gr1, flow])
def test_a_step_of_phase_two_moves_the_refinement_alone(module):
    config = resolve(module.get_config("debug,refine"))
    batch = batch_for(config)
    shapes = shapes_of(config, batch)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype),
        shapes,
    )
    _, (phase, optimizer) = optimizers(config, shapes)
    state = init_state(optimizer, variables, ema=False)
    step = jax.jit(step_of(config, phase, optimizer), compiler_options=QUICK)
    after, metrics = step(state, batch, jax.random.key(0))
    assert np.isfinite(metrics["loss"])
    before = dict(jax.tree_util.tree_leaves_with_path(state.params))
    moved = {
        leaf_path(keys)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(after.params)
        if np.any(leaf != before[keys])
    }
    assert moved and all(path.startswith("head/refine") for path in moved)


def test_a_refinement_is_a_second_phase():
    head = dict(name="regression", chunk=2, action_dim=3)
    config = dict(
        model=dict(trunk=dict(), head=head),
        train=dict(steps=5, ema_decay=0.9, keep=1),
    )
    made = add_refinement(
        config, dict(head, zero_init=True), steps=7, fields=dict(explicit=True)
    )
    assert made["model"]["head"] == dict(
        name="hierarchical",
        anchor=head,
        refine=dict(head, zero_init=True),
        explicit=True,
    )
    assert made["train"] == dict(
        ema_decay=0.9,
        keep=1,
        phases=(
            dict(
                name="anchor",
                steps=5,
                freeze=("head/refine", "head/anchor_tokens"),
                loss_weights=dict(refine=0.0),
            ),
            dict(
                name="refine",
                steps=7,
                loss_weights=dict(anchor=0.0),
                freeze=("(?!head/refine|head/anchor_tokens).*",),
                optimizer={},
                from_average=True,
            ),
        ),
    )
    assert config["train"]["steps"] == 5
    with pytest.raises(ValueError, match=r"\['anchor', 'refine'\] and a 'hierarchi"):
        add_refinement(made, head, steps=1)


def test_what_is_not_detached_is_trained_along_but_for_frozen_towers():
    phase = dict(name="train", steps=5, freeze=("image_shared",))
    config = dict(model=dict(head=dict(name="regression")), train=dict(phases=(phase,)))
    made = add_refinement(
        config, dict(name="regression"), steps=7, fields=dict(detach=False)
    )
    first, second = made["train"]["phases"]
    assert first["freeze"] == ("image_shared", "head/refine")
    assert second["freeze"] == ("image_shared",)
    assert not second["from_average"]


@pytest.mark.parametrize("words", ["big", "small,debug"])
@pytest.mark.parametrize("module", [gr1, flow])
def test_an_unknown_variant_is_named(module, words):
    with pytest.raises(ValueError, match=f"Unknown variant '{words}'; choose words"):
        module.get_config(words)
