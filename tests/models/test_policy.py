import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.fake_batch import make_batch, policy_config
from vla_jax.models.build import build


@pytest.fixture(scope="module", params=["grid", "points"])
def policy(request):
    model = build(policy_config(tokens=request.param))
    batch = make_batch()
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    return model, model.init(rngs, batch, train=True, method="loss")


def sample(policy, batch):
    model, variables = policy
    return model.apply(
        variables, batch.observation, batch.task, jax.random.key(0), method="sample"
    )


def loss(policy, batch, **options):
    model, variables = policy
    return model.apply(variables, batch, train=False, method="loss", **options)


def test_sample_is_a_chunk_of_actions(policy):
    assert sample(policy, make_batch()).shape == (2, 2, 3)


def test_masked_actions_do_not_change_the_loss(policy):
    batch = make_batch()
    changed = batch.replace(action=batch.action.at[:, -1].set(jnp.nan))
    np.testing.assert_array_equal(loss(policy, batch)[0], loss(policy, changed)[0])


def test_masked_words_do_not_change_the_action(policy):
    batch = make_batch()
    tokens = batch.task.tokens.at[:, -1].set(7)
    changed = batch.replace(task=batch.task.replace(tokens=tokens))
    np.testing.assert_array_equal(sample(policy, batch), sample(policy, changed))


def test_missing_camera_does_not_change_the_action_but_a_real_one_does(policy):
    batch = make_batch()
    observation = batch.observation

    def blank(real):
        image = {**observation.image, "wrist": observation.image["wrist"] * 0}
        mask = {**observation.image_mask, "wrist": jnp.full((2, 1), real)}
        return batch.replace(
            observation=observation.replace(image=image, image_mask=mask)
        )

    mask = {**observation.image_mask, "wrist": jnp.full((2, 1), False)}
    masked = batch.replace(observation=observation.replace(image_mask=mask))
    np.testing.assert_array_equal(sample(policy, masked), sample(policy, blank(False)))
    assert np.abs(sample(policy, batch) - sample(policy, blank(True))).max() > 1e-6


def test_frames_before_the_episode_do_not_change_the_action():
    model = build(policy_config())
    batch = make_batch(window=2)
    variables = model.init(jax.random.key(0), batch, train=False, method="loss")
    frame_mask = batch.observation.frame_mask.at[:, 0].set(False)
    observation = batch.observation.replace(frame_mask=frame_mask)
    other = observation.replace(
        image={k: v.at[:, 0].set(0) for k, v in observation.image.items()},
        proprio=observation.proprio.at[:, 0].set(5.0),
    )
    policy = (model, variables)
    before = sample(policy, batch.replace(observation=observation))
    after = sample(policy, batch.replace(observation=other))
    np.testing.assert_array_equal(before, after)


def test_proprio_is_dropped_for_whole_windows_and_only_in_training():
    model = build({**policy_config(), "proprio_dropout": 0.3})
    batch = make_batch(batch=200, window=2)

    def mask(train):
        @jax.jit
        def run(rng):
            rngs = {"params": rng, "dropout": jax.random.fold_in(rng, 1)}
            encode = dict(method="encode", train=train)
            context, _ = model.init_with_output(
                rngs, batch.observation, batch.task, **encode
            )
            return context.groups["proprio"].mask[..., 0]

        return np.asarray(run(jax.random.key(0)))

    frames = np.asarray(batch.observation.frame_mask)
    np.testing.assert_array_equal(mask(False), frames)
    kept = mask(True)
    np.testing.assert_array_equal(kept, frames & kept.any(1, keepdims=True))
    assert 0.6 < kept.any(1).mean() < 0.8
    with pytest.raises(ValueError, match=r"proprio_dropout is 1\.0; expected at leas"):
        jax.eval_shape(
            lambda: build({**policy_config(), "proprio_dropout": 1.0}).init(
                jax.random.key(0), batch, train=False, method="loss"
            )
        )


def test_the_instruction_changes_the_action(policy):
    batch = make_batch()
    tokens = batch.task.tokens.at[:, 0].add(1) % 8
    changed = batch.replace(task=batch.task.replace(tokens=tokens))
    assert np.abs(sample(policy, batch) - sample(policy, changed)).max() > 1e-6


def test_loss_is_the_weighted_l1_of_the_sample(policy):
    batch = make_batch()
    error = np.abs(np.asarray(sample(policy, batch) - batch.action))[:, 0].mean(-1)
    value, metrics = loss(policy, batch, weights={"action": 3.0})
    np.testing.assert_allclose(value, 3 * error, rtol=1e-5)
    np.testing.assert_allclose(metrics["action/l1"], error, rtol=1e-5)


def test_unknown_loss_weight_names_the_losses(policy):
    with pytest.raises(ValueError, match=r"\['maps'\].*\['action'\]"):
        loss(policy, make_batch(), weights={"maps": 1.0})


def test_camera_without_encoder_is_named():
    config = policy_config()
    config["image"] = {"primary": config["image"]["shared"]}
    with pytest.raises(ValueError, match=r"image module for camera 'wrist'"):
        build(config).init(jax.random.key(0), make_batch(), train=False, method="loss")


def test_camera_without_image_is_named():
    config = policy_config()
    config["tokens"]["side"] = config["tokens"]["shared"]
    with pytest.raises(ValueError, match=r"\['side'\].*\['primary', 'wrist'\]"):
        build(config).init(jax.random.key(0), make_batch(), train=False, method="loss")


def test_loss_falls_on_one_repeated_batch(policy):
    model, variables = policy
    batch = make_batch()
    optimizer = optax.adam(1e-2)
    state = optimizer.init(variables)

    @jax.jit
    def step(variables, state):
        def mean_loss(variables):
            return model.apply(variables, batch, train=False, method="loss")[0].mean()

        value, gradient = jax.value_and_grad(mean_loss)(variables)
        update, state = optimizer.update(gradient, state)
        return optax.apply_updates(variables, update), state, value

    losses = []
    for _ in range(60):
        variables, state, value = step(variables, state)
        losses.append(float(value))
    assert losses[-1] < 0.2 * losses[0]
