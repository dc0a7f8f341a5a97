"""The profiles of GR-1 and of the flow transformer, alone and under AnchorRefine."""

import functools

import jax
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
    (module, ",".join(words))
    for module in (gr1, flow)
    for words in ((), ("small",), ("debug",), ("refine",), ("refine", "small"))
]


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
    robot = jax.numpy.zeros(2, jax.numpy.int32)
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


@pytest.mark.parametrize(("module", "words"), CASES)
def test_every_phase_of_every_variant_has_an_optimizer(module, words):
    config = resolve(module.get_config(words))
    shapes = shapes_of(config, batch_for(config))
    phases = make_phases(config["train"])
    assert [p.name for p in phases][1:] == ["refine"] * ("refine" in words)
    for phase in phases:
        fields = config["optimizer"] | dict(phase.optimizer)
        optimizer = make_optimizer(shapes, phase.steps, phase.freeze, **fields)
        trained = {p for p in sizes(shapes["params"]) if not optimizer.frozen(p)}
        refined = {p for p in trained if p.startswith("head/refine")}
        assert trained and refined == (trained if phase.name == "refine" else set())


@pytest.mark.parametrize(("module", "billions"), [(gr1, 0.02), (flow, 0.2)])
def test_published_sizes_of_the_refinements(module, billions):
    config = resolve(module.get_config("refine"))
    count = sizes(shapes_of(config, batch_for(config))["params"])
    added = sum(n for path, n in count.items() if path.startswith("head/refine"))
    assert round(added / 1e9, 2 if billions < 0.1 else 1) == billions


@pytest.mark.parametrize("module", [gr1, flow])
def test_phase_two_starts_as_the_anchor_and_moves_the_refinement_alone(module):
    config = resolve(module.get_config("debug,refine"))
    model, batch = build(config["model"]), batch_for(config)
    rng = jax.random.key(0)
    draw = jax.jit(functools.partial(init_variables, model, {}))
    variables = draw(batch, rng)
    phase = make_phases(config["train"])[1]
    fields = config["optimizer"] | dict(phase.optimizer)
    optimizer = make_optimizer(variables, phase.steps, phase.freeze, **fields)
    parts = jax.jit(functools.partial(model.apply, method="explain"))(
        variables, batch.observation, batch.task, rng
    )
    np.testing.assert_array_equal(parts["residual"], 0)
    np.testing.assert_array_equal(parts["final"], parts["anchor"])
    step = functools.partial(
        train_step, model, optimizer, lambda rng, b: b, phase.loss_weights, 0.0
    )
    state = init_state(optimizer, variables, ema=False)
    after, metrics = jax.jit(step)(state, batch, rng)
    assert np.isfinite(metrics["loss"])
    moved = {
        leaf_path(keys)
        for (keys, old), new in zip(
            jax.tree_util.tree_leaves_with_path(state.params),
            jax.tree.leaves(after.params),
            strict=True,
        )
        if np.any(old != new)
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
