"""The GR-1 trunk: who reads whom, and how large it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.gr1 import get_config
from tests.fake_batch import make_batch
from vla_jax.models.build import build
from vla_jax.models.gr1 import ArmGripperProprio, GR1Trunk, gr1_mask
from vla_jax.models.perceiver import PerceiverResampler, ResampledTokens
from vla_jax.types import Context, Tokens

TRUNK = GR1Trunk(
    width=8, num_layers=2, num_heads=2, mlp_width=16, num_readouts=2, dropout=0.0
)


def make_context(window=2, width=4):
    """An instruction of one token, proprio, and a camera of two patches and a whole."""
    batch = make_batch(batch=1, window=window)
    rng = np.random.default_rng(1)

    def tokens(frames, count):
        values = rng.standard_normal((1, frames, count, width)).astype(np.float32)
        return Tokens(jnp.asarray(values), jnp.ones((1, frames, count), bool))

    groups = {
        "language": tokens(1, 1),
        "primary": tokens(window, 3),
        "proprio": tokens(window, 1),
    }
    features = {"primary": {"cls": jnp.zeros((1, window, 1, 1, width))}}
    return Context(batch.observation, batch.task, features=features, groups=groups)


@pytest.fixture(scope="module")
def trunk():
    context = make_context()
    variables = TRUNK.init(jax.random.key(0), context, train=False)
    return jax.jit(lambda context: TRUNK.apply(variables, context, train=False))


def moved(context, name, frame):
    group = context.groups[name]
    values = group.values.at[:, frame].add(1.0)
    return context.replace(
        groups={**context.groups, name: group.replace(values=values)}
    )


def test_mask_of_two_frames_of_two_tokens_and_two_queries():
    wanted = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
    ]
    np.testing.assert_array_equal(gr1_mask(4, 2), wanted)


def test_heads_get_the_present_frame_in_the_published_order(trunk):
    context = make_context()
    out = trunk(context)
    # instruction, proprio, two patches, whole picture; two queries
    assert out.tokens.values.shape == (1, 5, 8) and out.readout.shape == (1, 2, 8)
    changed = trunk(moved(context, "primary", 1)).tokens.values
    same = np.isclose(changed, out.tokens.values, atol=1e-6).all((0, 2))
    np.testing.assert_array_equal(same, [True, True, False, False, False])
    changed = trunk(moved(context, "proprio", 1)).tokens.values
    same = np.isclose(changed, out.tokens.values, atol=1e-6).all((0, 2))
    np.testing.assert_array_equal(same, [True, False, False, False, False])


def test_history_is_read_and_can_be_given_to_heads(trunk):
    context = make_context()
    out, changed = trunk(context), trunk(moved(context, "primary", 0))
    assert np.abs(out.readout - changed.readout).max() > 1e-4
    every = TRUNK.clone(keep_history=True)
    variables = every.init(jax.random.key(0), context, train=False)
    tokens = every.apply(variables, context, train=False).tokens
    assert tokens.values.shape == (1, 10, 8) and tokens.mask.shape == (1, 10)


def test_queries_are_read_by_nobody():
    context = make_context()
    variables = TRUNK.init(jax.random.key(0), context, train=False)
    out = TRUNK.apply(variables, context, train=False)
    query = variables["params"]["query"].at[0].add(1.0)
    changed = {"params": {**variables["params"], "query": query}}
    after = TRUNK.apply(changed, context, train=False)
    np.testing.assert_array_equal(out.tokens.values, after.tokens.values)
    np.testing.assert_array_equal(out.readout[:, 1], after.readout[:, 1])
    assert np.abs(out.readout[:, 0] - after.readout[:, 0]).max() > 1e-4


def test_frames_before_the_episode_change_nothing(trunk):
    context = make_context()
    mask = context.observation.frame_mask.at[:, 0].set(False)
    context = context.replace(observation=context.observation.replace(frame_mask=mask))
    out, changed = trunk(context), trunk(moved(context, "primary", 0))
    np.testing.assert_array_equal(out.readout, changed.readout)
    np.testing.assert_array_equal(out.tokens.mask, np.ones((1, 5), bool))


def test_one_resampler_reads_all_patches_and_the_whole_comes_last():
    module = ResampledTokens(PerceiverResampler(3, 1, 2, head_dim=4))
    rng = np.random.default_rng(0)
    patches = jnp.asarray(rng.standard_normal((1, 2, 2, 2, 6)), jnp.float32)
    whole = jnp.asarray(rng.standard_normal((1, 2, 1, 1, 6)), jnp.float32)
    levels = {"patches": patches, "cls": whole}
    mask = jnp.array([[False, True]])
    variables = module.init(jax.random.key(0), levels, mask)
    tokens = module.apply(variables, levels, mask)
    assert tokens.values.shape == (1, 2, 4, 6)
    np.testing.assert_array_equal(tokens.values[:, :, 3], whole[:, :, 0, 0])
    np.testing.assert_array_equal(tokens.mask, [[[False] * 4, [True] * 4]])
    for cell in ((0, 0), (1, 1)):
        other = {**levels, "patches": patches.at[0, 1, *cell, 0].add(1.0)}
        changed = module.apply(variables, other, mask).values
        assert np.abs(changed - tokens.values)[0, 1, :3].min() > 1e-6
        np.testing.assert_array_equal(changed[0, 0], tokens.values[0, 0])


def test_resampler_agrees_with_its_formula_in_numpy():
    model = PerceiverResampler(num_latents=2, num_layers=1, num_heads=1, head_dim=3)
    x = np.random.default_rng(0).standard_normal((1, 3, 4)).astype(np.float32)
    variables = model.init(jax.random.key(0), jnp.asarray(x))
    p = jax.tree.map(np.asarray, variables["params"])

    def norm(x):
        centered = x - x.mean(-1, keepdims=True)
        return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)

    def gelu(x):
        from math import erf

        return x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2

    latent = p["latent"]
    query = norm(latent)
    memory = np.concatenate([norm(x[0] + p["position"]), query])
    q = query @ p["layer_0_q"]["kernel"][:, 0]
    k, v = (memory @ p[f"layer_0_{name}"]["kernel"][:, 0] for name in "kv")
    scores = np.exp(q @ k.T / np.sqrt(3))
    weights = scores / scores.sum(-1, keepdims=True)
    latent = latent + weights @ v @ p["layer_0_out"]["kernel"][0]
    hidden = gelu(norm(latent) @ p["layer_0_mlp_in"]["kernel"])
    latent = latent + hidden @ p["layer_0_mlp_out"]["kernel"]
    ours = model.apply(variables, jnp.asarray(x))
    np.testing.assert_allclose(ours[0], norm(latent), atol=1e-4)


def test_proprio_needs_an_arm_and_a_gripper():
    with pytest.raises(ValueError, match="gripper_dims is 4, but proprio has 4"):
        ArmGripperProprio(8, 4).init(jax.random.key(0), jnp.zeros((1, 1, 4)))


def test_published_size_has_the_number_of_parameters_counted_by_hand():
    policy = build(get_config().model.to_dict())
    batch = make_batch(
        batch=1,
        window=10,
        chunk=10,
        action_dim=7,
        proprio_dim=7,
        length=8,
        image_size=224,
    )
    init = jax.eval_shape(
        lambda rng: policy.init(rng, batch, train=False, method="loss"),
        jax.random.key(0),
    )["params"]
    count = {
        name: sum(leaf.size for leaf in jax.tree.leaves(part))
        for name, part in init.items()
    }
    d, e = 384, 768
    layer = 12 * d * d + 13 * d
    groups = (512 * d + d) + (d * d + d) + 4 * (e * d + d)
    ends = 10 * d + 10 * d + 2 * 2 * d  # frames, queries, two norms
    resampler = 3 * (4 * e * 512 + 8 * e * e + 3 * 2 * e) + (9 + 1 + 2) * e
    head = (d * 192 + 192) + (192 * 192 + 192) + (192 * 7 + 7)
    assert count == {
        "image_shared": 85_798_656,  # ViT-B/16 of MAE
        "text": 63_428_096 - 512 * 1 + 512,  # CLIP ViT-B/32's text tower
        "tokens_shared": resampler,
        "proprio": (6 * d + d) + (d + d) + (2 * d * d + d),
        "trunk": 12 * layer + groups + ends,
        "head": head,
    }
    assert round(sum(count.values()) / 1e9, 1) == 0.2  # as the paper says
