"""AnchorRefine: the acceptance checks of its two phases, for each kind of head."""

import functools

import jax
import numpy as np
import pytest

from tests.heads.anchor_refine import (
    ANCHOR_FREEZE,
    KINDS,
    REFINE_FREEZE,
    batch,
    part,
    policy,
)
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.paths import leaf_path
from vla_jax.train.step import init_state, init_variables, train_step

RNG = jax.random.key(0)
ONLY_REFINE = dict(anchor=0.0)


class Arm:
    """A policy with the programs that the tests share, each compiled once."""

    def __init__(self, kind, **fields):
        self.model = policy(kind, **fields)
        self.draw = functools.partial(init_variables, self.model, {}, batch(), RNG)

    @functools.cached_property
    def start(self):
        """The state in which phase two starts; no weights but those of the head's
        refinement are at their initial values."""
        return init_state(self.optimizer(REFINE_FREEZE), self.variables, ema=True)

    @functools.cached_property
    def variables(self):
        return jax.jit(self.draw)()

    @functools.cached_property
    def random(self):
        """Variables of which none is zero, without compiling the initialization."""
        rng = np.random.default_rng(0)
        return jax.tree.map(
            lambda x: np.float32(rng.normal(size=x.shape)), jax.eval_shape(self.draw)
        )

    def optimizer(self, freeze):
        shapes = jax.eval_shape(self.draw)
        known = [p for p in freeze if p != "residual_scale" or p in shapes]
        return make_optimizer(shapes, 9, known, learning_rate=0.05)

    def step(self, freeze, weights):
        def keep(rng, batch):
            return batch

        bound = (self.model, self.optimizer(freeze), keep, weights, 0.9)
        return jax.jit(functools.partial(train_step, *bound))

    @functools.cached_property
    def refine(self):
        return self.step(REFINE_FREEZE, ONLY_REFINE)

    @functools.cached_property
    def refined(self):
        """The state after three steps of phase two."""
        state = self.start
        for seed in range(3):
            state, self.metrics = self.refine(state, batch(seed), RNG)
        return state

    @functools.cached_property
    def explain(self):
        """`(variables, batch) -> parts of a sample, and the sample`."""

        def explain(variables, data):
            inputs = (data.observation, data.task, jax.random.key(1))
            parts = self.model.apply(variables, *inputs, method="explain")
            sample = self.model.apply(variables, *inputs, method="sample")
            return {**parts, "sample": sample}

        return jax.jit(explain)

    @functools.cached_property
    def differentiate(self):
        """`(variables, batch) -> gradient and metrics` of the refinement's loss."""

        def loss(params, variables, data):
            value, metrics = self.model.apply(
                {**variables, "params": params},
                data,
                train=False,
                weights=ONLY_REFINE,
                rngs={"noise": RNG},
                method="loss",
            )
            return value.mean(), metrics

        gradient = jax.jit(jax.grad(loss, has_aux=True))
        return lambda variables, data: gradient(variables["params"], variables, data)


def variables_of(state):
    return {"params": state.params, **state.collections}


def only(*kinds):
    """Runs a test for some kinds: what a program shows once, it need not thrice."""
    return pytest.mark.parametrize("trained", kinds, indirect=True)


@pytest.fixture(scope="module", params=KINDS)
def trained(request):
    return Arm(request.param)


def paths(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {leaf_path(keys): np.asarray(leaf) for keys, leaf in leaves}


def test_phase_two_starts_as_the_anchor_bit_for_bit(trained):
    parts = trained.explain(variables_of(trained.start), batch())
    np.testing.assert_array_equal(parts["residual"], 0)
    np.testing.assert_array_equal(parts["final"], parts["anchor"])
    sample, anchor = parts["sample"], parts["anchor"]
    np.testing.assert_array_equal(sample[..., -1], anchor[..., -1] > 0.5)
    np.testing.assert_array_equal(sample[..., :-1], anchor[..., :-1])


def test_phase_two_changes_the_policy_but_not_the_anchor(trained):
    before = trained.explain(variables_of(trained.start), batch())
    after = trained.explain(variables_of(trained.refined), batch())
    np.testing.assert_array_equal(after["anchor"], before["anchor"])
    assert np.abs(after["residual"][:, 0]).min() > 0  # the other step is not real


def test_no_phase_one_parameter_drifts_nor_does_its_average(trained):
    before, after = trained.start, trained.refined
    for name in ("params", "ema_params"):
        old, new = paths(getattr(before, name)), paths(getattr(after, name))
        assert any(path.startswith("head/refine") for path in old)
        for path, value in old.items():
            if not path.startswith("head/refine"):
                np.testing.assert_array_equal(new[path], value, err_msg=path)


@only("regression", "flow")
def test_no_gradient_reaches_phase_one_even_if_nothing_is_frozen(trained):
    gradient, _ = trained.differentiate(variables_of(trained.refined), batch())
    for path, value in paths(gradient).items():
        if not path.startswith("head/refine"):
            np.testing.assert_array_equal(value, 0, err_msg=path)
    assert any(np.any(value != 0) for value in jax.tree.leaves(gradient))


@only("flow")
def test_phase_one_leaves_the_refinement_untouched(trained):
    step = trained.step(ANCHOR_FREEZE, dict(refine=0.0))
    start = init_state(trained.optimizer(ANCHOR_FREEZE), trained.variables, ema=True)
    state, metrics = step(start, batch(), RNG)
    old, new = paths(start.params), paths(state.params)
    moved = {path for path, value in old.items() if np.any(new[path] != value)}
    assert moved and not any(path.startswith("head/refine") for path in moved)
    assert not any(name.startswith("refine/") for name in metrics)
    for value in jax.tree.leaves(state.collections):
        np.testing.assert_array_equal(value, 0)


def test_the_anchor_of_a_sample_depends_on_the_sample_alone(trained):
    variables = variables_of(trained.start)
    whole = trained.explain(variables, batch())["anchor"]
    turned = jax.tree.map(lambda x: x[::-1], batch())
    other = trained.explain(variables, turned)["anchor"][::-1]
    np.testing.assert_allclose(other, whole, atol=1e-5)


def test_training_corrects_the_anchor_that_is_played(trained):
    # The trunk has dropout; phase two must not see it.
    data = batch()
    anchor = trained.explain(variables_of(trained.start), data)["anchor"]
    _, metrics = trained.refine(trained.start, data, RNG)
    np.testing.assert_allclose(
        metrics["refine/anchor_residual_norm"], norms(data, anchor).mean(), rtol=1e-5
    )


def norms(data, chunk):
    arm = data.action_mask & np.array([True, True, False])[None, None]
    return np.sqrt(np.square(np.where(arm, data.action - chunk, 0)).sum((1, 2)))


@only("regression", "flow")
def test_validation_reports_norms_and_flips(trained):
    data, variables = batch(), variables_of(trained.refined)
    _, metrics = trained.differentiate(variables, data)
    anchor = trained.explain(variables, data)["anchor"]
    np.testing.assert_allclose(
        metrics["refine/anchor_residual_norm"], norms(data, anchor), rtol=1e-5
    )
    names = {name.removeprefix("refine/") for name in metrics}
    assert {"final_residual_trace", "gripper_wrong_to_right", "action_norm"} <= names


@only("flow", "diffusion")
def test_residuals_are_divided_by_their_measured_spread(trained):
    anchor = trained.explain(variables_of(trained.start), batch())["anchor"]
    state, _ = trained.refine(trained.start, batch(), RNG)
    residual = (batch().action - anchor)[:, 0, :2]  # the second step is not real
    count, total, square = state.collections["residual_scale"]["head"]["moments"]
    np.testing.assert_array_equal(count, [3, 3, 0])
    np.testing.assert_allclose(total[:2], residual.sum(0), rtol=1e-3, atol=1e-4)
    spread = np.sqrt(square[:2] / 3 - (total[:2] / 3) ** 2)
    np.testing.assert_allclose(spread, residual.std(0), rtol=1e-2)


def test_a_plain_policy_draws_its_anchor_anew():
    plain = Arm("flow", anchor_seed=None)
    data = batch()
    alike = jax.tree.map(lambda x: np.repeat(x[:1], 3, 0), data)
    first, second, _ = plain.explain(plain.random, alike)["anchor"]
    assert np.abs(first[..., :2] - second[..., :2]).min() > 1e-6
    _, metrics = plain.differentiate(plain.random, data)
    assert np.isfinite(metrics["refine/anchor_residual_norm"]).all()


def test_undetached_refinement_reaches_the_anchor():
    loose = Arm("regression", detach=False)
    gradient = paths(loose.differentiate(loose.random, batch())[0])
    for name in ("head/anchor", "trunk"):
        assert any(
            np.any(value != 0) for p, value in gradient.items() if p.startswith(name)
        )


def test_an_explicit_refinement_reads_the_anchor():
    explicit = Arm("regression", explicit=True)
    before = explicit.explain(explicit.random, batch())
    moved = jax.tree.map(np.copy, explicit.random)
    moved["params"]["head"]["anchor"]["action"]["bias"] += 1.0
    after = explicit.explain(moved, batch())
    assert np.abs(after["residual"] - before["residual"]).max() > 1e-6


def test_a_direct_refinement_replaces_the_anchor_of_the_arm():
    direct = Arm("regression", target="action")
    parts = direct.explain(direct.random, batch())
    np.testing.assert_array_equal(parts["final"][..., :-1], parts["residual"][..., :-1])
    corrected = parts["anchor"] + parts["residual"]
    np.testing.assert_allclose(parts["final"][..., -1], corrected[..., -1], rtol=1e-6)


def test_without_gripper_refinement_the_anchor_decides():
    plain = Arm("regression", gripper_target=None)
    parts = plain.explain(plain.random, batch())
    np.testing.assert_array_equal(parts["final"][..., -1], parts["anchor"][..., -1])
    assert np.all(parts["residual"][..., -1] != 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(target="actions"), "Unknown target 'actions'; did you mean 'action'"),
        (dict(gripper_target="naive"), "Unknown gripper_target 'naive'"),
        (
            dict(refine=part("regression").clone(chunk=4)),
            "chunk is 2 and refine.ch.* 4",
        ),
        (dict(refine=part("flow")), "'velocity'; a generative refinement needs"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    made = policy("regression")
    model = made.clone(head=made.head.clone(**fields))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: init_variables(model, {}, batch(), RNG))
