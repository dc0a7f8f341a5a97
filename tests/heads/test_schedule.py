import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.heads.schedule import (
    PREDICTIONS,
    add_noise,
    alpha_bars,
    cosine_betas,
    ddim_step,
    ddpm_step,
    sampling_steps,
)

K = 20


def full(value):
    return jnp.full((1, 1, 1), value)


def draw(seed):
    return jax.random.normal(jax.random.key(seed), (2, 3, 4))


def test_cosine_schedule_of_two_timesteps():
    # f(0), f(1/2), f(1) = cos^2 of 0.0124666, 0.7916315, 1.5707963
    np.testing.assert_allclose(cosine_betas(2), [0.506156, 0.999], atol=1e-6)
    np.testing.assert_allclose(alpha_bars(2), [0.493844, 0.000493844], atol=1e-6)


def test_ddpm_step_by_hand():
    # alpha = 0.5 / 0.8 = 0.625, beta = 0.375, variance = 0.2 / 0.5 * 0.375 = 0.15
    expected = 0.8**0.5 * 0.375 / 0.5 * 1 + 0.625**0.5 * 0.2 / 0.5 * 2 + 0.15**0.5 * 3
    step = ddpm_step(
        full(1.0), full(2.0), full(3.0), jnp.float32(0.5), jnp.float32(0.8)
    )
    np.testing.assert_allclose(step, full(expected), rtol=1e-6)


def test_the_last_ddpm_step_returns_the_estimate_whatever_the_noise():
    step = ddpm_step(full(0.7), full(2.0), full(9.0), jnp.float32(0.6), jnp.float32(1))
    np.testing.assert_allclose(step, full(0.7), rtol=1e-6)


def test_ddim_step_by_hand():
    step = ddim_step(full(1.0), full(2.0), jnp.float32(0.8))
    np.testing.assert_allclose(step, full(0.8**0.5 + 2 * 0.2**0.5), rtol=1e-6)


def test_sampling_steps_end_at_clean_data():
    steps = sampling_steps(10, 5)
    np.testing.assert_array_equal(steps.timestep, [8, 6, 4, 2, 0])
    bars = alpha_bars(10)[[8, 6, 4, 2, 0]].astype(np.float32)
    np.testing.assert_array_equal(steps.alpha_bar, bars)
    np.testing.assert_array_equal(steps.next_alpha_bar, [*bars[1:], 1.0])


@pytest.mark.parametrize("num_steps", [0, 11])
def test_an_impossible_number_of_steps_is_refused(num_steps):
    with pytest.raises(ValueError, match=f"{num_steps}; expected 1 to num_t.*=10"):
        sampling_steps(10, num_steps)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_target_of_a_prediction_implies_clean_data_and_noise(name):
    clean, noise, alpha_bar = draw(0), draw(1), jnp.float32(0.3)
    target = PREDICTIONS[name].target(clean, noise, alpha_bar)
    noisy = add_noise(clean, noise, alpha_bar)
    both = PREDICTIONS[name].split(target, noisy, alpha_bar)
    np.testing.assert_allclose(both, (clean, noise), atol=1e-5)


NAMES = {"epsilon": "epsilon", "sample": "sample", "velocity": "v_prediction"}


def theirs(kind, prediction):
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, f"Flax{kind}Scheduler")(
        num_train_timesteps=K,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=NAMES[prediction],
        clip_sample=True,
    )
    return scheduler, scheduler.create_state()


def test_schedule_and_noising_agree_with_diffusers():
    scheduler, state = theirs("DDPM", "epsilon")
    np.testing.assert_allclose(cosine_betas(K), state.common.betas, rtol=1e-5)
    timestep = jnp.array([3, 17])
    bars = jnp.asarray(alpha_bars(K), jnp.float32)[timestep][:, None, None]
    expected = scheduler.add_noise(state, draw(0), draw(1), timestep)
    np.testing.assert_allclose(add_noise(draw(0), draw(1), bars), expected, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddpm_steps_agree_with_diffusers(prediction, monkeypatch):
    clip = jnp.clip
    # The reference spells an argument in a way that JAX has dropped.
    monkeypatch.setattr(
        jnp,
        "clip",
        lambda x, low=None, high=None, a_min=None: clip(x, low or a_min, high),
    )
    scheduler, state = theirs("DDPM", prediction)
    state = scheduler.set_timesteps(state, K)
    steps = sampling_steps(K, K)
    np.testing.assert_array_equal(steps.timestep, state.timesteps)
    key = jax.random.key(5)
    noise = jax.random.normal(jax.random.split(key, 1)[0], (2, 3, 4))
    for timestep, now, after in zip(*map(jnp.asarray, steps), strict=True):
        if timestep not in (K - 1, 7, 0):
            continue
        output, noisy = draw(2), draw(3)
        expected = scheduler.step(state, output, timestep, noisy, key).prev_sample
        clean, _ = PREDICTIONS[prediction].split(output, noisy, now)
        step = ddpm_step(jnp.clip(clean, -1, 1), noisy, noise, now, after)
        np.testing.assert_allclose(step, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_steps_agree_with_diffusers(prediction):
    scheduler, state = theirs("DDIM", prediction)
    state = scheduler.set_timesteps(state, 5)
    steps = sampling_steps(K, 5)
    np.testing.assert_array_equal(steps.timestep, state.timesteps)
    for timestep, now, after in zip(*map(jnp.asarray, steps), strict=True):
        output, noisy = draw(2), draw(3)
        expected = scheduler.step(state, output, timestep, noisy).prev_sample
        clean, noise = PREDICTIONS[prediction].split(output, noisy, now)
        step = ddim_step(jnp.clip(clean, -1, 1), noise, after)
        np.testing.assert_allclose(step, expected, rtol=1e-3, atol=1e-4)
