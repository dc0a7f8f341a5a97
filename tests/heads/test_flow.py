import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.heads.oracle import Oracle, make_context
from vla_jax.heads.flow import TIME_LAWS, FlowHead

DATA = np.array([[[0.5, -2.0], [3.0, 1.0]]], np.float32)


def straight(noisy, time):
    """The velocity that leads from anywhere to the data at time 1."""
    return (DATA - noisy) / (1 - time)


def head(answer, **fields):
    return FlowHead(denoiser=Oracle(answer), chunk=2, action_dim=2, **fields)


def sample(head, batch=1, seed=0):
    rng = jax.random.key(seed)
    return head.apply({}, make_context(batch), rng, method="sample")


@pytest.mark.parametrize("num_steps", [1, 2, 10])
@pytest.mark.parametrize("integrator", ["euler", "midpoint"])
def test_exact_velocity_integrates_back_to_the_data(integrator, num_steps):
    exact = head(straight, integrator=integrator, num_steps=num_steps)
    np.testing.assert_allclose(sample(exact), DATA, atol=2e-5)


@pytest.mark.parametrize("integrator", ["euler", "midpoint", "fixed_noise"])
def test_a_predicted_chunk_is_what_comes_out(integrator):
    fields = dict(prediction="sample", integrator=integrator, num_steps=3)
    constant = head(lambda noisy, time: jnp.broadcast_to(DATA, noisy.shape), **fields)
    np.testing.assert_allclose(sample(constant), DATA, atol=1e-5)


@pytest.mark.parametrize("integrator", ["euler", "fixed_noise"])
def test_a_predicted_zero_comes_out_as_exactly_zero(integrator):
    zero = head(
        lambda noisy, time: 0 * noisy, prediction="sample", integrator=integrator
    )
    np.testing.assert_array_equal(sample(zero), np.zeros((1, 2, 2)))


def test_one_euler_step_by_hand():
    doubled = head(lambda noisy, time: 2 * noisy + time, num_steps=1)
    noise = sample(head(lambda noisy, time: 0 * noisy))
    np.testing.assert_allclose(sample(doubled), 3 * noise, rtol=1e-6)


def test_temperature_scales_the_noise_of_the_start():
    def play(**fields):
        return sample(head(lambda noisy, time: 0 * noisy, **fields))

    np.testing.assert_allclose(play(temperature=0.5), play() / 2, rtol=1e-6)
    np.testing.assert_array_equal(play(temperature=0.0), np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match=r"temperature is 2\.0; expected 0 to 1"):
        play(temperature=2.0)


def test_midpoint_is_exact_for_a_velocity_linear_in_time_and_euler_is_not():
    noise = sample(head(lambda noisy, time: 0 * noisy))

    def moved(integrator):
        linear = head(
            lambda noisy, time: 2 * time + 0 * noisy, integrator=integrator, num_steps=4
        )
        return sample(linear) - noise

    np.testing.assert_allclose(moved("midpoint"), np.ones((1, 2, 2)), atol=1e-5)
    np.testing.assert_allclose(moved("euler"), np.full((1, 2, 2), 0.75), atol=1e-5)


@pytest.mark.parametrize("prediction", ["velocity", "sample"])
def test_the_loss_of_an_oracle_is_zero(prediction):
    def answer(noisy, time):
        chunk = jnp.broadcast_to(DATA, noisy.shape)
        return chunk if prediction == "sample" else straight(noisy, time)

    action = jnp.repeat(jnp.asarray(DATA), 4, 0)
    loss, _ = head(answer, prediction=prediction).apply(
        {},
        make_context(4),
        action,
        jnp.ones(action.shape, bool),
        train=True,
        rngs={"noise": jax.random.key(1)},
        method="loss",
    )
    np.testing.assert_allclose(loss, np.zeros(4), atol=1e-6)


def test_masked_actions_do_not_change_the_loss():
    mask = jnp.ones((1, 2, 2), bool).at[:, 1].set(False)

    def loss(last):
        action = jnp.asarray(DATA).at[:, 1].set(last)
        return head(lambda noisy, time: noisy).apply(
            {},
            make_context(),
            action,
            mask,
            train=True,
            rngs={"noise": jax.random.key(1)},
            method="loss",
        )[0]

    np.testing.assert_array_equal(loss(0.0), loss(jnp.nan))


def test_time_laws():
    times = {name: law(jax.random.key(0), 20000) for name, law in TIME_LAWS.items()}
    # v ~ Beta(1.5, 1) is below 1/2 with probability 0.5^1.5 = 0.354.
    share = np.mean(np.asarray(times["literal"]) < 0.999 * 0.5 + 0.001)
    np.testing.assert_allclose(share, 0.354, atol=0.01)
    np.testing.assert_allclose(times["openpi"], 1 - times["literal"], atol=1e-6)
    assert times["openpi"].min() >= 0 and times["openpi"].max() <= 0.999
    np.testing.assert_allclose(times["openpi"].mean(), 0.4, atol=0.01)
    spread = np.diff(np.sort(TIME_LAWS["stratified"](jax.random.key(0), 4)))
    np.testing.assert_allclose(spread, [0.25] * 3, atol=1e-6)


def test_a_draw_depends_on_its_key_alone():
    plain = head(lambda noisy, time: jnp.sin(noisy) + time)
    keys = jax.random.split(jax.random.key(3), 2)

    def predict(keys):
        return plain.apply({}, make_context(len(keys)), keys, method="predict")

    np.testing.assert_array_equal(predict(keys)[1:], predict(keys[1:]))
    np.testing.assert_array_equal(sample(plain, 2), sample(plain, 2))
    assert np.abs(sample(plain, 2) - sample(plain, 2, seed=1)).min() > 1e-4


def test_the_gripper_does_not_flow_but_is_decided():
    def answer(noisy, time):
        return jnp.stack([noisy[..., 0], 5 * noisy[..., 1] - 1.0], -1)

    decided = head(answer, gripper_dims=(1,))
    keys = jax.random.split(jax.random.key(0), 1)
    chunk = decided.apply({}, make_context(), keys, method="predict")
    # The denoiser sees 0 there, so that the logit is -1.
    np.testing.assert_allclose(chunk[..., 1], np.full((1, 2), 0.268941), rtol=1e-5)
    np.testing.assert_array_equal(sample(decided)[..., 1], np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("field", "name", "message"),
    [
        ("integrator", "heun", "Unknown integrator 'heun'.*'midpoint'"),
        ("prediction", "epsilon", "Unknown prediction 'epsilon'.*'velocity'"),
        ("time_law", "beta", "Unknown time_law 'beta'.*'openpi'"),
        ("integrator", "fixed_noise", "needs prediction='sample', not 'velocity'"),
    ],
)
def test_unknown_names_are_refused_with_the_known(field, name, message):
    with pytest.raises(ValueError, match=message):
        sample(head(straight, **{field: name}))
