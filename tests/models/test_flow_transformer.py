"""Soft prompts and the joint denoiser: who reads whom, and how large they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.flow import get_config
from tests.fake_batch import make_batch
from vla_jax.models.build import build, build_model
from vla_jax.models.flow_transformer import EmbodimentDense, JointDenoiser, PromptTrunk
from vla_jax.models.time_embedding import SinusoidalTime
from vla_jax.types import Context, Tokens

SMALL = dict(width=8, num_layers=1, num_heads=2, mlp_width=16, dropout=0.0)


def make_context(robots=(0, 1, 1), width=4):
    batch = make_batch(batch=len(robots))
    values = np.random.default_rng(0).standard_normal((len(robots), 1, 3, width))
    mask = jnp.ones((len(robots), 1, 3), bool).at[:, :, 2].set(False)
    group = Tokens(jnp.asarray(values, jnp.float32), mask)
    robots = None if robots[0] is None else jnp.array(robots, jnp.int32)
    observation = batch.observation.replace(embodiment=robots)
    return Context(observation, batch.task, groups={"primary": group})


def make_denoiser(robots=2):
    return JointDenoiser(
        SinusoidalTime(4), 2, 3, num_embodiments=robots, hidden_proprio=(3,), **SMALL
    )


def nonzero(variables):
    """Random numbers everywhere, also where training starts at zero."""
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.5, x.shape), x.dtype), variables
    )


def test_each_robot_reads_its_own_prompts():
    trunk = PromptTrunk(width=8, num_embodiments=2, num_prompts=2)
    context = make_context()
    variables = trunk.init(jax.random.key(0), context, train=False)
    out = trunk.apply(variables, context, train=False)
    prompts = variables["params"]["prompt"]
    assert prompts.shape == (2, 2, 8)
    np.testing.assert_array_equal(out.readout, prompts[jnp.array([0, 1, 1])])
    np.testing.assert_array_equal(out.tokens.values[:, 3:], out.readout)
    np.testing.assert_array_equal(out.tokens.mask, [[1, 1, 0, 1, 1]] * 3)


def test_prompts_of_absent_robots_get_no_gradient():
    trunk = PromptTrunk(num_embodiments=3, num_prompts=2, **SMALL)
    context = make_context()
    variables = trunk.init(jax.random.key(0), context, train=False)

    def total(variables):
        return jnp.sum(trunk.apply(variables, context, train=False).tokens.values ** 2)

    gradient = jax.grad(total)(variables)["params"]["prompt"]
    moved = np.abs(gradient).max((1, 2)) > 0
    np.testing.assert_array_equal(moved, [True, True, False])


def test_masked_tokens_change_no_other():
    trunk = PromptTrunk(num_embodiments=2, num_prompts=2, **SMALL)
    context = make_context()
    variables = trunk.init(jax.random.key(0), context, train=False)
    group = context.groups["primary"]
    other = group.replace(values=group.values.at[:, :, 2].add(1.0))
    out, changed = (
        trunk.apply(variables, context.replace(groups={"primary": g}), train=False)
        for g in (group, other)
    )
    np.testing.assert_array_equal(out.readout, changed.readout)
    np.testing.assert_array_equal(
        out.tokens.values[:, :2], changed.tokens.values[:, :2]
    )


def test_several_robots_need_to_be_told_apart_and_one_does_not():
    context = make_context(robots=(None, None))
    trunk = PromptTrunk(num_embodiments=2, **SMALL)
    with pytest.raises(ValueError, match="prompts for 2 robots"):
        trunk.init(jax.random.key(0), context, train=False)
    trunk = PromptTrunk(num_prompts=2, **SMALL)
    trunk.init(jax.random.key(0), context, train=False)


def test_embodiment_dense_is_one_matrix_per_robot():
    layer = EmbodimentDense(2, 1)
    kernel = jnp.array([[[1.0], [0.0]], [[0.0], [2.0]]])
    variables = {"params": {"kernel": kernel, "bias": jnp.array([[0.0], [10.0]])}}
    x = jnp.array([[[3.0, 4.0]], [[3.0, 4.0]]])
    out = layer.apply(variables, x, jnp.array([0, 1]))
    np.testing.assert_array_equal(out, [[[3.0]], [[18.0]]])


def test_denoiser_starts_at_zero_and_every_action_reads_every_token():
    context = make_context()
    tokens = Tokens(jnp.ones((3, 4, 8)).at[:, 1].set(0.5), jnp.ones((3, 4), bool))
    context = context.replace(
        tokens=tokens.replace(mask=tokens.mask.at[:, 3].set(False))
    )
    denoiser = make_denoiser()
    noisy = jax.random.normal(jax.random.key(1), (3, 2, 3))
    time = jnp.full(3, 0.5)

    def apply(variables, noisy, context):
        prepared = denoiser.apply(variables, context, method="prepare")
        return denoiser.apply(variables, noisy, time, prepared, train=False)

    prepared = denoiser.prepare(context)
    variables = denoiser.init(jax.random.key(0), noisy, time, prepared, train=False)
    assert not apply(variables, noisy, context).any()
    variables = nonzero(variables)
    out = apply(variables, noisy, context)

    def change(**kwargs):
        return np.abs(
            out - apply(variables, **{"noisy": noisy, "context": context} | kwargs)
        )

    assert change(noisy=noisy.at[:, 1].add(1.0)).max(-1).min() > 1e-6

    def with_token(index):
        values = context.tokens.values.at[:, index, 0].add(1.0)
        return context.replace(tokens=context.tokens.replace(values=values))

    assert change(context=with_token(1)).max(-1).min() > 1e-7
    assert not change(context=with_token(3)).any()

    def with_proprio(dim):
        observation = context.observation
        proprio = observation.proprio.at[:, -1, dim].add(1.0)
        return context.replace(observation=observation.replace(proprio=proprio))

    assert change(context=with_proprio(0)).max(-1).min() > 1e-6
    assert not change(context=with_proprio(3)).any()  # hidden_proprio


def test_denoiser_refuses_tokens_of_another_width():
    tokens = Tokens(jnp.ones((3, 4, 6)), jnp.ones((3, 4), bool))
    with pytest.raises(ValueError, match=r"tokens have 6 numbers.*denoiser's 8"):
        make_denoiser().prepare(make_context().replace(tokens=tokens))


def test_more_data_sets_than_prompts_are_refused():
    config = get_config("debug").model.to_dict()
    entry = {"name": "a", "action": ["relative"] * 3 + ["gripper"]}
    metadata = dict(chunk=8, action_dim=4, vocab_size=9, datasets=[entry, entry])
    with pytest.raises(ValueError, match="num_embodiments is 1, but there are 2 data"):
        build_model(config, metadata)


def test_published_size_has_the_number_of_parameters_counted_by_hand():
    policy = build(get_config().model.to_dict())
    batch = make_batch(
        batch=1,
        chunk=30,
        action_dim=7,
        proprio_dim=8,
        length=8,
        image_size=224,
    )
    batch = batch.replace(
        observation=batch.observation.replace(embodiment=jnp.zeros(1, jnp.int32))
    )
    shapes = jax.eval_shape(
        lambda rng: policy.init(
            {"params": rng, "noise": rng}, batch, train=False, method="loss"
        ),
        jax.random.key(0),
    )["params"]
    d, robots = 1024, 4
    layers = 24 * (12 * d * d + 13 * d)
    ends = robots * ((7 + 8 + 32) * d + d) + robots * (7 * d + 7) + 30 * d + 2 * d
    head = sum(leaf.size for leaf in jax.tree.leaves(shapes["head"]))
    assert head == layers + ends
    prompts = robots * 32 * d
    cameras = 2 * (d * d + d + 256 * d)
    language = 768 * d + d + 8 * d
    trunk = sum(leaf.size for leaf in jax.tree.leaves(shapes["trunk"]))
    assert trunk == prompts + cameras + language
