import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.heads.oracle import Oracle, make_context
from vla_jax.heads.diffusion import DiffusionHead
from vla_jax.heads.schedule import PREDICTIONS, alpha_bars

DATA = np.array([[[0.5, -0.25], [1.0, 0.0]]], np.float32)
K = 100


def know(data, prediction):
    """The answer of a denoiser that knows that all data are `data`."""

    def answer(noisy, time):
        bar = jnp.asarray(alpha_bars(K), jnp.float32)[time.astype(jnp.int32)]
        clean = jnp.broadcast_to(data, noisy.shape)
        noise = PREDICTIONS["sample"].split(clean, noisy, bar)[1]
        return PREDICTIONS[prediction].target(clean, noise, bar)

    return answer


def head(answer, **fields):
    oracle = Oracle(answer)
    return DiffusionHead(oracle, 2, 2, num_timesteps=K, **{"num_steps": K, **fields})


def sample(head, batch=1):
    return head.apply({}, make_context(batch), jax.random.key(0), method="sample")


@pytest.mark.parametrize("sampler, num_steps", [("ddpm", K), ("ddpm", 5), ("ddim", 5)])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_exact_predictions_lead_to_the_data(prediction, sampler, num_steps):
    exact = head(
        know(DATA, prediction),
        prediction=prediction,
        sampler=sampler,
        num_steps=num_steps,
    )
    np.testing.assert_allclose(sample(exact), DATA, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_of_an_oracle_is_zero(prediction):
    action = jnp.repeat(jnp.asarray(DATA), 4, 0)
    loss, metrics = head(know(DATA, prediction), prediction=prediction).apply(
        {},
        make_context(4),
        action,
        jnp.ones(action.shape, bool),
        train=True,
        rngs={"noise": jax.random.key(1)},
        method="loss",
    )
    np.testing.assert_allclose(loss, np.zeros(4), atol=1e-4)
    assert list(metrics) == [f"{prediction}_mse"]


def test_samples_stay_within_the_clip():
    far = np.float32([[[3.0, -3.0], [3.0, -3.0]]])
    fields = dict(prediction="sample", sampler="ddim", num_steps=5)
    clipped = sample(head(know(far, "sample"), **fields))
    np.testing.assert_allclose(clipped, np.sign(far), atol=1e-6)
    free = sample(head(know(far, "sample"), clip=None, **fields))
    np.testing.assert_allclose(free, far, atol=1e-6)


def test_a_predicted_zero_comes_out_as_exactly_zero():
    for sampler in ("ddpm", "ddim"):
        zero = head(lambda x, time: 0 * x, prediction="sample", sampler=sampler)
        np.testing.assert_array_equal(sample(zero), np.zeros((1, 2, 2)))


def gaussian(mean, spread):
    """The best noise estimate for independent normal data."""

    def answer(noisy, time):
        bar = jnp.asarray(alpha_bars(K), jnp.float32)[time.astype(jnp.int32)]
        variance = bar * spread**2 + 1 - bar
        return jnp.sqrt(1 - bar) * (noisy - jnp.sqrt(bar) * mean) / variance

    return answer


# A hundred steps make data that are no single point somewhat narrower; the recursion
# of the variance over the steps ends at these.
@pytest.mark.parametrize(
    "sampler, expected", [("ddpm", [0.0872, 0.2843]), ("ddim", [0.0928, 0.2929])]
)
def test_the_best_noise_estimate_gives_the_mean_and_spread_of_the_data(
    sampler, expected
):
    mean, spread = np.float32([[[0.2, -0.4]]]), np.float32([[[0.1, 0.3]]])
    best = head(gaussian(mean, spread), sampler=sampler, clip=None)
    draws = sample(best, 4000)
    np.testing.assert_allclose(draws.mean((0, 1)), mean[0, 0], atol=0.015)
    np.testing.assert_allclose(draws.std((0, 1)), expected, rtol=0.05)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_at_temperature_zero_every_draw_is_near_the_mean(sampler):
    mean, spread = np.float32([[[0.2, -0.4]]]), np.float32([[[0.1, 0.3]]])
    fields = dict(sampler=sampler, clip=None, temperature=0.0)
    draws = sample(head(gaussian(mean, spread), **fields), 3)
    np.testing.assert_allclose(draws, np.broadcast_to(mean, draws.shape), atol=0.02)
    np.testing.assert_array_equal(draws[1:], draws[:-1])


def test_unknown_names_are_refused_with_the_known():
    with pytest.raises(ValueError, match="Unknown sampler 'ddmp'; did you mean 'ddpm'"):
        sample(head(know(DATA, "epsilon"), sampler="ddmp"))
    with pytest.raises(ValueError, match=r"Unknown prediction 'eps'.*'epsilon'"):
        sample(head(know(DATA, "epsilon"), prediction="eps"))
