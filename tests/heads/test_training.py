"""Generative heads that are trained, on data whose distribution is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.heads.oracle import make_context
from vla_jax.heads.diffusion import DiffusionHead
from vla_jax.heads.flow import FlowHead
from vla_jax.models.mlp_denoiser import MLPDenoiser
from vla_jax.models.time_embedding import SinusoidalTime

MEAN = np.array([0.3, -0.2])
COVARIANCE = np.array([[0.16, 0.08], [0.08, 0.09]])
BATCH, STEPS = 128, 400


def denoiser(min_period, max_period):
    time = SinusoidalTime(16, min_period, max_period)
    return MLPDenoiser(time, width=32, hidden=64, num_blocks=1)


def heads():
    flow = FlowHead(denoiser(4e-3, 4.0), 1, 2, num_steps=20, integrator="midpoint")
    steps = dict(num_timesteps=50, num_steps=25, sampler="ddim", clip=3.0)
    diffusion = DiffusionHead(denoiser(6.3, 6.3e4), chunk=1, action_dim=2, **steps)
    return {"flow": flow, "diffusion": diffusion}


def train(head, draw):
    """Draws of a head after training on `draw(rng) -> [b 1 2]`."""
    context, mask = make_context(BATCH), jnp.ones((BATCH, 1, 2), bool)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, STEPS))

    def loss(variables, rng):
        noise, data = jax.random.split(rng)
        return head.apply(
            variables,
            context,
            draw(data),
            mask,
            train=True,
            rngs={"noise": noise},
            method="loss",
        )[0].mean()

    def step(carry, rng):
        variables, state = carry
        gradient = jax.grad(loss)(variables, rng)
        update, state = optimizer.update(gradient, state)
        return (optax.apply_updates(variables, update), state), None

    @jax.jit
    def run(rng):
        keys = {"params": rng, "noise": rng}
        variables = head.init(keys, context, draw(rng), mask, train=True, method="loss")
        rngs = jax.random.split(jax.random.key(1), STEPS)
        carry = (variables, optimizer.init(variables))
        (variables, _), _ = jax.lax.scan(step, carry, rngs)
        context4 = make_context(2000)
        return head.apply(variables, context4, rng, method="sample")[:, 0]

    return np.asarray(run(jax.random.key(0)))


@pytest.mark.parametrize("name", ["flow", "diffusion"])
def test_a_trained_head_recovers_mean_and_covariance(name):
    root = jnp.asarray(np.linalg.cholesky(COVARIANCE), jnp.float32)

    def draw(rng):
        standard = jax.random.normal(rng, (BATCH, 1, 2))
        return jnp.asarray(MEAN, jnp.float32)[None, None] + standard @ root.T

    draws = train(heads()[name], draw)
    np.testing.assert_allclose(draws.mean(0), MEAN, atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), COVARIANCE, atol=0.03)


def test_a_trained_flow_finds_both_modes_and_nothing_between():
    def draw(rng):
        sign = jnp.where(jax.random.bernoulli(rng, 0.5, (BATCH, 1, 1)), 1.0, -1.0)
        return jnp.broadcast_to(sign, (BATCH, 1, 2))

    draws = train(heads()["flow"], draw)
    assert 0.4 < np.mean(draws[:, 0] > 0) < 0.6
    assert np.mean(np.abs(draws[:, 0]) < 0.5) < 0.05
    np.testing.assert_allclose(np.abs(draws).mean(), 1, atol=0.1)
