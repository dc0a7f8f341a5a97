"""AnchorRefine: the acceptance checks of its two phases, for each kind of head."""

import functools

import jax
import numpy as np
import pytest

from tests.heads.anchor_refine import ANCHOR_PHASE, REFINE_PHASE, batch, config
from vla_jax.models.build import build
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.paths import leaf_path
from vla_jax.train.step import (
    eval_step,
    init_state,
    init_variables,
    start_phase,
    train_step,
)

KINDS = ("regression", "flow", "diffusion")
RNG = jax.random.key(0)


class Trained:
    """A policy after phase one, with the state in which phase two starts."""

    def __init__(self, kind, *, steps=2, **fields):
        self.model = build(config(kind, **fields))
        self.weights = dict(REFINE_PHASE["loss_weights"])
        draw = functools.partial(init_variables, self.model, {})
        variables = jax.jit(draw)(batch(), RNG)
        scaled = "residual_scale" in variables
        frozen = {
            "anchor": (*ANCHOR_PHASE["freeze"], *["residual_scale"] * scaled),
            "refine": REFINE_PHASE["freeze"],
        }
        self.optimizers = {
            name: make_optimizer(variables, 9, freeze, learning_rate=0.05)
            for name, freeze in frozen.items()
        }
        state = init_state(self.optimizers["anchor"], variables, ema=True)
        self.untrained = state
        step = self.step("anchor", ANCHOR_PHASE["loss_weights"])
        for seed in range(steps):
            state, self.anchor_metrics = step(state, batch(seed), RNG)
        self.start = start_phase(self.optimizers["refine"], state, ema=True)

    def step(self, phase, weights):
        keep = lambda rng, batch: batch  # noqa: E731
        bound = (self.model, self.optimizers[phase], keep, dict(weights), 0.9)
        return jax.jit(functools.partial(train_step, *bound))

    @functools.cached_property
    def refine(self):
        return self.step("refine", self.weights)

    @functools.cached_property
    def refined(self):
        state = self.start
        for seed in range(3):
            state, self.refine_metrics = self.refine(state, batch(seed), RNG)
        return state

    @functools.cached_property
    def explain(self):
        def explain(state, data):
            variables = {"params": state.params, **state.collections}
            inputs = (data.observation, data.task, jax.random.key(1))
            parts = self.model.apply(variables, *inputs, method="explain")
            sample = self.model.apply(variables, *inputs, method="sample")
            return {**parts, "sample": sample}

        return jax.jit(explain)


@pytest.fixture(scope="module", params=KINDS)
def trained(request):
    return Trained(request.param)


def paths(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {leaf_path(keys): np.asarray(leaf) for keys, leaf in leaves}


def test_phase_two_starts_as_the_anchor_bit_for_bit(trained):
    parts = trained.explain(trained.start, batch())
    np.testing.assert_array_equal(parts["residual"], 0)
    np.testing.assert_array_equal(parts["final"], parts["anchor"])
    gripper = parts["anchor"][..., -1] > 0.5
    np.testing.assert_array_equal(parts["sample"][..., -1], gripper)
    np.testing.assert_array_equal(parts["sample"][..., :-1], parts["anchor"][..., :-1])


def test_phase_two_changes_the_policy_but_not_the_anchor(trained):
    before = trained.explain(trained.start, batch())
    after = trained.explain(trained.refined, batch())
    np.testing.assert_array_equal(after["anchor"], before["anchor"])
    assert np.abs(after["residual"]).min() > 0


def test_no_phase_one_parameter_drifts_nor_does_its_average(trained):
    before, after = trained.start, trained.refined
    for name in ("params", "ema_params"):
        old, new = paths(getattr(before, name)), paths(getattr(after, name))
        assert any(path.startswith("head/refine") for path in old)
        for path, value in old.items():
            if not path.startswith("head/refine"):
                np.testing.assert_array_equal(new[path], value, err_msg=path)


def test_phase_one_leaves_the_refinement_untouched(trained):
    old, new = paths(trained.untrained.params), paths(trained.start.params)
    moved = {path for path, value in old.items() if np.any(new[path] != value)}
    assert moved and not any(path.startswith("head/refine") for path in moved)
    assert not any(name.startswith("refine/") for name in trained.anchor_metrics)
    for value in jax.tree.leaves(trained.start.collections):
        np.testing.assert_array_equal(value, 0)


def refine_gradient(trained, weights):
    state = trained.refined

    def loss(params):
        return trained.model.apply(
            {"params": params, **state.collections},
            batch(),
            train=False,
            weights=weights,
            rngs={"noise": RNG},
            method="loss",
        )[0].mean()

    return paths(jax.jit(jax.grad(loss))(state.params))


def test_no_gradient_reaches_phase_one_even_if_nothing_is_frozen(trained):
    gradient = refine_gradient(trained, dict(anchor=0.0))
    for path, value in gradient.items():
        if not path.startswith("head/refine"):
            np.testing.assert_array_equal(value, 0, err_msg=path)
    assert any(np.any(value != 0) for value in gradient.values())


def test_the_anchor_of_a_sample_depends_on_the_sample_alone(trained):
    whole = trained.explain(trained.start, batch())["anchor"]
    turned = jax.tree.map(lambda x: x[::-1], batch())
    other = trained.explain(trained.start, turned)["anchor"][::-1]
    np.testing.assert_allclose(other, whole, atol=1e-5)


def test_validation_reports_norms_and_flips(trained):
    state, data = trained.refined, batch()
    evaluate = jax.jit(functools.partial(eval_step, trained.model, trained.weights))
    metrics = evaluate(state.params, state.collections, data, RNG, 0)
    parts = trained.explain(state, data)
    arm = data.action_mask & np.array([True, True, False])[None, None]
    missing = np.where(arm, data.action - parts["anchor"], 0)
    norms = np.sqrt(np.square(missing).sum((1, 2)))
    np.testing.assert_allclose(
        metrics["refine/anchor_residual_norm"], norms.mean(), rtol=1e-5
    )
    names = {name.removeprefix("refine/") for name in metrics}
    assert {"final_residual_trace", "gripper_wrong_to_right", "action_norm"} <= names


def test_undetached_refinement_reaches_the_anchor():
    loose = Trained("regression", steps=0, detach=False)
    gradient = refine_gradient(loose, dict(anchor=0.0))
    for part in ("head/anchor", "trunk"):
        assert any(
            np.any(value != 0) for p, value in gradient.items() if p.startswith(part)
        )


def test_an_explicit_refinement_reads_the_anchor():
    explicit = Trained("regression", steps=0, explicit=True)
    parts = explicit.explain(explicit.refined, batch())
    state = explicit.refined
    params = jax.tree.map(lambda x: x, state.params)
    params["head"]["anchor"]["action"]["bias"] += 1.0
    moved = explicit.explain(state.replace(params=params), batch())
    assert np.abs(moved["residual"] - parts["residual"]).max() > 1e-6


def test_a_direct_refinement_replaces_the_anchor_of_the_arm():
    direct = Trained("regression", steps=0, target="action")
    parts = direct.explain(direct.refined, batch())
    np.testing.assert_array_equal(parts["final"][..., :-1], parts["residual"][..., :-1])
    np.testing.assert_allclose(
        parts["final"][..., -1],
        parts["anchor"][..., -1] + parts["residual"][..., -1],
        rtol=1e-6,
    )


def test_without_gripper_refinement_the_anchor_decides():
    plain = Trained("regression", steps=0, gripper_target=None)
    parts = plain.explain(plain.refined, batch())
    np.testing.assert_array_equal(parts["final"][..., -1], parts["anchor"][..., -1])
    assert "refine/gripper_loss" not in plain.refine_metrics


def test_residuals_are_divided_by_their_measured_spread(trained):
    if not trained.start.collections:
        pytest.skip("a regression of the residual is not scaled")
    anchor = trained.explain(trained.start, batch())["anchor"]
    state, _ = trained.refine(trained.start, batch(), RNG)
    residual = (batch().action - anchor)[:, 0, :2]  # the second step is not real
    count, total, square = state.collections["residual_scale"]["head"]["moments"]
    np.testing.assert_array_equal(count, [3, 3, 0])
    np.testing.assert_allclose(total[:2], residual.sum(0), rtol=1e-3, atol=1e-4)
    spread = np.sqrt(square[:2] / 3 - (total[:2] / 3) ** 2)
    np.testing.assert_allclose(spread, residual.std(0), rtol=1e-2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(target="actions"), "Unknown target 'actions'; did you mean 'action'"),
        (dict(gripper_target="naive"), "Unknown gripper_target 'naive'"),
        (dict(refine=dict(chunk=4)), "anchor.chunk is 2 and refine.chunk 4"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    made = config("regression")
    refine = {**made["head"]["refine"], **fields.pop("refine", {})}
    head = {**made["head"], **fields, "refine": refine}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda: init_variables(build({**made, "head": head}), {}, batch(), RNG)
        )


def test_a_generative_refinement_must_predict_the_residual_itself():
    made = config("flow")
    made["head"]["refine"] = made["head"]["anchor"]
    with pytest.raises(ValueError, match="'velocity'; a generative refinement needs"):
        jax.eval_shape(lambda: init_variables(build(made), {}, batch(), RNG))
