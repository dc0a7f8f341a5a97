"""ACT against torch.nn parts, its size, and what may and may not change its output."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch
from vla_jax.heads.per_step import PerStepHead
from vla_jax.models.act import EncoderDecoderTrunk, SineGridTokens
from vla_jax.models.latent import ActionVAE
from vla_jax.models.policy import Policy
from vla_jax.models.post_norm import (
    EncoderLayer,
    TorchDense,
    sine_positions_1d,
    sine_positions_2d,
)
from vla_jax.types import Context, Tokens

SIZES = dict(num_layers=1, num_heads=2, mlp_width=24, dropout=0.1)


class Pixels(nn.Module):
    """An encoder without parameters: every fourth pixel."""

    @nn.compact
    def __call__(self, image, *, train):
        del train
        return {"layer4": image[:, ::4, ::4]}


def make_policy(**trunk):
    return Policy(
        image={"shared": Pixels()},
        tokens={"shared": SineGridTokens("layer4", 16)},
        trunk=EncoderDecoderTrunk(width=16, num_readouts=5, **SIZES, **trunk),
        head=PerStepHead(chunk=5, action_dim=3),
        proprio=TorchDense(16),
        latent=ActionVAE(width=16, latent_dim=4, **SIZES),
    )


BATCH = make_batch(batch=3, chunk=5, cameras=("primary",))


def shapes(model, batch=BATCH):
    rngs = {name: jax.random.key(0) for name in ("params", "noise")}
    init = functools.partial(model.init, train=False, method="loss")
    return jax.eval_shape(init, rngs, batch)


@pytest.fixture(scope="module")
def act():
    """A policy and random parameters, drawn without compiling an initialization."""
    model, rng = make_policy(), np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32)

    return model, jax.tree.map(draw, shapes(model))


def test_forward_and_gradients_agree_with_torch(act, monkeypatch):
    import torch

    from tests.models.torch_act import ACT, correspondence

    model, variables = act
    noise = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)
    monkeypatch.setattr(jax.random, "normal", lambda rng, shape: jnp.asarray(noise))

    def mean_loss(params):
        loss, metrics = model.apply(
            {"params": params},
            BATCH,
            train=False,
            rngs={"noise": jax.random.key(0)},
            method="loss",
        )
        return loss.mean(), metrics

    def chunk(params):
        group, *_ = model.apply(
            {"params": params},
            method=lambda m: m.latent(
                BATCH.observation.proprio[:, -1],
                BATCH.action,
                BATCH.action_mask,
                train=False,
            ),
            rngs={"noise": jax.random.key(0)},
        )
        observation, task = BATCH.observation, BATCH.task
        context = model.apply({"params": params}, observation, task, latent=group)
        return model.apply({"params": params}, method=lambda m: m.head(context))

    (_, metrics), gradient = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))(
        variables["params"]
    )
    ours = jax.jit(chunk)(variables["params"])

    sizes = dict(d=16, heads=2, hidden=24, layers=1)
    theirs = ACT(**sizes, chunk=5, action=3, proprio=4, latent=4, f=3)
    weights = correspondence(variables["params"], layers=1)
    assert weights.keys() == dict(theirs.named_parameters()).keys()
    theirs.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
    image = np.asarray(BATCH.observation.image["primary"][:, 0], np.float32) / 127.5 - 1
    features = torch.from_numpy(image[:, ::4, ::4].transpose(0, 3, 1, 2).copy())
    real = torch.from_numpy(np.array(BATCH.action_mask.any(-1)))
    action = torch.from_numpy(np.array(BATCH.action))
    proprio = torch.from_numpy(np.array(BATCH.observation.proprio[:, -1]))
    predicted, mean, log_variance = theirs(
        features, proprio, action, real, torch.from_numpy(noise)
    )
    np.testing.assert_allclose(ours, predicted.detach(), atol=1e-4)
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)
    np.testing.assert_allclose(metrics["latent/divergence"], kl.detach(), rtol=1e-4)
    error = ((predicted - action).abs() * real[..., None]).sum((1, 2))
    loss = (error / (3 * real.sum(1)) + 10 * kl).mean()
    loss.backward()
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    for name, value in correspondence(gradient, layers=1).items():
        scale = np.linalg.norm(expected[name])
        difference = np.linalg.norm(value - expected[name])
        assert difference <= 1e-3 * scale + 1e-6, (name, difference, scale)


@pytest.mark.parametrize(("num_decoder_layers", "millions"), [(1, 51.61), (7, 83.92)])
def test_full_size_has_the_parameters_of_the_published_model(
    num_decoder_layers, millions
):
    from configs.act import get_config
    from vla_jax.models.build import build

    config = get_config().model.to_dict()
    config["trunk"]["num_decoder_layers"] = num_decoder_layers
    batch = make_batch(
        batch=1, chunk=100, action_dim=14, proprio_dim=14, cameras=("top",)
    )
    leaves = jax.tree.leaves(shapes(build(config), batch)["params"])
    assert abs(sum(leaf.size for leaf in leaves) / 1e6 - millions) < 0.005


def test_padded_actions_change_neither_latent_nor_loss(act):
    model, variables = act
    other = BATCH.replace(action=BATCH.action.at[:, -1].set(jnp.nan))
    loss = jax.jit(
        lambda batch: model.apply(
            variables,
            batch,
            train=False,
            rngs={"noise": jax.random.key(0)},
            method="loss",
        )[0]
    )
    np.testing.assert_array_equal(loss(BATCH), loss(other))


def test_at_run_time_the_latent_is_the_mean_of_the_prior(act):
    model, variables = act
    sample = jax.jit(
        lambda rng: model.apply(
            variables, BATCH.observation, BATCH.task, rng, method="sample"
        )
    )
    np.testing.assert_array_equal(sample(jax.random.key(0)), sample(jax.random.key(1)))
    group = model.apply(variables, 3, method=lambda m, b: m.latent.prior(b))
    bias = variables["params"]["latent"]["latent_project"]["linear"]["bias"]
    np.testing.assert_allclose(group.values[:, 0, 0], np.tile(bias, (3, 1)))


def test_dropout_is_on_in_training_only(act):
    model, variables = act

    def loss(seed, train):
        rngs = {"noise": jax.random.key(0), "dropout": jax.random.key(seed)}
        return model.apply(variables, BATCH, train=train, rngs=rngs, method="loss")[0]

    loss = jax.jit(loss, static_argnums=1)
    assert np.abs(loss(0, True) - loss(1, True)).max() > 1e-4
    np.testing.assert_array_equal(loss(0, False), loss(1, False))


def test_all_layers_of_a_deeper_decoder_matter():
    model = make_policy(num_decoder_layers=2)
    params = shapes(model)["params"]["trunk"]
    assert {"decoder_0", "decoder_1"} <= params.keys()


def test_a_masked_token_changes_nothing():
    trunk = EncoderDecoderTrunk(width=16, num_readouts=2, **SIZES)
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.standard_normal((1, 1, 4, 16)), jnp.float32)
    mask = jnp.array([[[True, True, False, True]]])
    observation = make_batch(batch=1).observation

    def context(values):
        groups = {"a": Tokens(values, mask)}
        return Context(observation=observation, task=None, groups=groups)

    init = functools.partial(trunk.init, train=False)
    variables = jax.jit(init)(jax.random.key(0), context(values))

    @jax.jit
    def run(variables, values):
        return trunk.apply(variables, context(values), train=False).readout

    before = run(variables, values)
    np.testing.assert_array_equal(before, run(variables, values.at[:, :, 2].set(9.0)))
    assert np.abs(before - run(variables, values.at[:, :, 1].set(9.0))).max() > 1e-3


def test_one_dimensional_positions_by_hand():
    table = sine_positions_1d(3, 4)
    np.testing.assert_allclose(table[0], [0, 1, 0, 1])
    slow = 2 / 100
    expected = [np.sin(2), np.cos(2), np.sin(slow), np.cos(slow)]
    np.testing.assert_allclose(table[2], expected, rtol=1e-6)


def test_two_dimensional_positions_by_hand():
    table = sine_positions_2d(2, 3, 4)
    assert table.shape == (2, 3, 4)
    row, column = 2 / (2 + 1e-6) * 2 * np.pi, 1 / (3 + 1e-6) * 2 * np.pi
    expected = [np.sin(row), np.cos(row), np.sin(column), np.cos(column)]
    np.testing.assert_allclose(table[1, 0], expected, atol=1e-6)


def test_a_group_of_another_width_is_named():
    trunk = EncoderDecoderTrunk(width=16, num_readouts=2, **SIZES)
    model = make_policy().copy(trunk=trunk, proprio=TorchDense(8))
    with pytest.raises(ValueError, match="'proprio' have 8 numbers, the trunk 16"):
        shapes(model)


@pytest.mark.parametrize(("divide_by", "expected"), [("real", 2.0), ("all", 1.0)])
def test_the_loss_divides_by_real_or_by_all_entries(divide_by, expected):
    head = PerStepHead(chunk=2, action_dim=1, divide_by=divide_by)
    context = Context(observation=None, task=None, readout=jnp.zeros((1, 2, 4)))
    params = {"action": {"kernel": jnp.zeros((4, 1)), "bias": jnp.zeros(1)}}
    action = jnp.array([[[2.0], [7.0]]])
    mask = jnp.array([[[True], [False]]])
    loss, metrics = head.apply(
        {"params": params}, context, action, mask, train=True, method="loss"
    )
    np.testing.assert_allclose(loss, [expected])
    np.testing.assert_allclose(metrics["l1"], [2.0])


def test_initial_matrices_have_the_ranges_of_the_original():
    x = jnp.zeros((1, 1, 16))

    def draw(init):
        layer = EncoderLayer(num_heads=2, mlp_width=24, initializer=init)
        real = jnp.ones((1, 1), bool)
        draw = functools.partial(layer.init, train=False)
        return jax.jit(draw)(jax.random.key(0), x, x, real)["params"]

    drawn = {init: draw(init) for init in ("xavier", "torch")}

    def largest(init, *path):
        leaf = drawn[init]
        for key in path:
            leaf = leaf[key]
        return np.abs(leaf).max()

    stacked = np.sqrt(6 / (16 + 48))  # Xavier over [d, 3d]
    for init in ("xavier", "torch"):
        assert 0.8 * stacked < largest(init, "attention", "q", "kernel") <= stacked
        assert 0.8 * 0.25 < largest(init, "mlp_in", "bias") <= 0.25  # 1 / sqrt(16)
    xavier, torch = np.sqrt(6 / 32), 0.25
    assert 0.8 * xavier < largest("xavier", "attention", "out", "kernel") <= xavier
    assert 0.8 * torch < largest("torch", "attention", "out", "kernel") <= torch
