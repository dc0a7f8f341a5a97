"""MSACT's points: as tokens, as something to foresee, and what must not change."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch
from vla_jax.models.attention_points import sine_features
from vla_jax.models.build import build
from vla_jax.models.future_points import FuturePoints, spread_metrics, spread_penalty
from vla_jax.types import Context

LAYERS = dict(width=16, num_layers=1, num_heads=2, mlp_width=16)
CHUNK, POINTS, CAMERAS = 5, 2, ("angle", "top", "wrist")


def config(**change):
    """A tiny MSACT with two attention cameras; `change` is of "attention_points"."""
    points = dict(
        name="attention_points",
        cameras=("top", "angle"),
        maps=dict(
            shared=dict(
                name="multistage_maps",
                stages=dict(name="level_stages", levels=("stem", "stage1")),
                num_points=POINTS,
            )
        ),
        width=16,
        future=dict(name="future_points", chunk=CHUNK),
    )
    return dict(
        name="policy",
        image=dict(shared=dict(name="conv", patch=4, widths=(4, 4, 4), strides=(2, 1))),
        tokens=dict(shared=dict(name="sine_grid", level="stage2", width=16)),
        proprio=dict(name="linear", width=16),
        latent=dict(name="action_vae", latent_dim=4, **LAYERS),
        trunk=dict(name="encoder_decoder", num_readouts=CHUNK, **LAYERS),
        head=dict(name="per_step", chunk=CHUNK, action_dim=3),
        attention=(points | change,),
    )


def with_future(seed=0):
    """A batch with three later frames per example, the last of them past the end."""
    batch, rng = (
        make_batch(seed, chunk=CHUNK, cameras=CAMERAS),
        np.random.default_rng(9),
    )
    shape = (2, 3, 16, 16, 3)
    mask = jnp.array([[True, True, False]] * 2)
    label = {
        "offset": jnp.array([[1, 3, 4], [2, 3, 4]]),
        "mask": mask,
        "image": {
            c: jnp.asarray(rng.integers(0, 256, shape, np.uint8)) for c in CAMERAS
        },
        "image_mask": {c: mask for c in CAMERAS},
    }
    return batch.replace(labels={"future_frames": label})


BATCH = with_future()


def draw(model, batch=BATCH):
    """Random variables without compiling an initialization."""
    rngs = {name: jax.random.key(0) for name in ("params", "noise")}
    init = functools.partial(model.init, train=False, method="loss")
    rng = np.random.default_rng(1)

    def fill(leaf):
        return jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32)

    return jax.tree.map(fill, jax.eval_shape(init, rngs, batch))


def loss_of(model):
    def loss(variables, batch, weights):
        rngs = {"noise": jax.random.key(0)}
        return model.apply(
            variables, batch, train=False, weights=weights, rngs=rngs, method="loss"
        )

    return jax.jit(loss)


@pytest.fixture(scope="module")
def msact():
    model = build(config())
    return model, draw(model), loss_of(model)


class Unread(nn.Module):
    """The same points, with their tokens masked: they take no attention at all."""

    points: nn.Module

    def __call__(self, context, *, train):
        context = self.points(context, train=train)
        tokens = context.groups["points"]
        tokens = tokens.replace(mask=jnp.zeros_like(tokens.mask))
        return context.replace(groups=context.groups | {"points": tokens})


def test_with_masked_tokens_the_policy_is_act_with_the_same_parameters(msact):
    model, variables, _ = msact
    sample = lambda model, params: jax.jit(  # noqa: E731
        lambda p: model.apply(
            {"params": p},
            BATCH.observation,
            BATCH.task,
            jax.random.key(0),
            method="sample",
        )
    )(params)
    params = dict(variables["params"])
    points = params.pop("attention_0")
    act = build({**config(), "attention": ()})
    baseline = sample(act, {k: v for k, v in params.items()})
    unread = model.copy(attention=(Unread(model.attention[0]),))
    masked = sample(unread, {**params, "attention_0": {"points": points}})
    np.testing.assert_allclose(masked, baseline, atol=1e-5)
    assert np.abs(sample(model, variables["params"]) - baseline).max() > 1e-4


def test_the_loss_ignores_future_frames_past_the_end(msact):
    model, variables, loss = msact
    label = BATCH.labels["future_frames"]
    other = {
        camera: image.at[:, 2].set(255 - image[:, 2])
        for camera, image in label["image"].items()
    }
    changed = BATCH.replace(labels={"future_frames": {**label, "image": other}})
    weights = {"align": 1.0}
    before, metrics = loss(variables, BATCH, weights)
    np.testing.assert_allclose(loss(variables, changed, weights)[0], before, rtol=1e-6)
    real = {camera: image.at[:, 1].set(0) for camera, image in label["image"].items()}
    changed = BATCH.replace(labels={"future_frames": {**label, "image": real}})
    assert np.abs(loss(variables, changed, weights)[0] - before).max() > 1e-6
    del model
    assert 0 < metrics["align/l1"] < 1


def test_the_loss_is_zero_where_the_points_were_foreseen():
    """`predict` is tanh(x / 2) of a bias, so targets of that value cost nothing."""
    future = FuturePoints(chunk=3)
    context = Context(observation=None, task=None, readout=jnp.zeros((1, 3, 4)))
    bias = jnp.array([0.5, -1.0])
    params = {"points": {"linear": {"kernel": jnp.zeros((4, 2)), "bias": bias}}}
    target = jnp.broadcast_to(jnp.tanh(bias / 2), (1, 2, 1, 2))
    mask, offset = jnp.ones((1, 2, 1), bool), jnp.array([[1, 2]])

    def loss(target, offset=offset, mask=mask, **fields):
        module = future.copy(**fields)
        return module.apply({"params": params}, context, target, mask, offset)[0]

    np.testing.assert_allclose(loss(target), [0.0], atol=1e-7)
    # One of two frames off by 0.2 in x and y, in -1..1, is 0.05 on average in 0..1.
    off = target.at[:, 1].add(0.2)
    np.testing.assert_allclose(loss(off), [0.05], rtol=1e-5)
    np.testing.assert_allclose(loss(off, coordinates="signed"), [0.1], rtol=1e-5)
    np.testing.assert_allclose(loss(off, jnp.array([[1, 3]])), [0.0], atol=1e-7)
    masked = jnp.array([[[True], [False]]])
    np.testing.assert_allclose(loss(off, mask=masked), [0.0], atol=1e-7)


def test_the_step_that_is_compared_is_the_offset():
    future = FuturePoints(chunk=3)
    readout = jnp.arange(3.0)[None, :, None]  # x of the point of step j is tanh(j / 2)
    context = Context(observation=None, task=None, readout=readout)
    kernel = jnp.array([[1.0, 0.0]])
    params = {"points": {"linear": {"kernel": kernel, "bias": jnp.zeros(2)}}}
    target = jnp.array([[[[np.tanh(1.0), 0.0]]]])
    for offset, expected in ((2, 0.0), (1, (np.tanh(1) - np.tanh(0.5)) / 4)):
        loss, _ = future.apply(
            {"params": params},
            context,
            target,
            jnp.ones((1, 1, 1), bool),
            jnp.array([[offset]]),
        )
        np.testing.assert_allclose(loss, [expected], atol=1e-6)


def alone(**future):
    """The attention module without a policy: variables, context and labels."""
    fields = config(future=dict(name="future_points", chunk=CHUNK, **future))
    module = build(fields["attention"][0] | dict(as_tokens=False))
    rng = np.random.default_rng(2)

    def features(frames):
        return {
            camera: {
                "stem": jnp.asarray(rng.normal(size=(2, frames, 4, 4, 3)), jnp.float32),
                "stage1": jnp.asarray(
                    rng.normal(size=(2, frames, 2, 2, 3)), jnp.float32
                ),
            }
            for camera in ("top", "angle")
        }

    context = Context(
        observation=BATCH.observation,
        task=BATCH.task,
        features=features(1),
        readout=jnp.asarray(rng.normal(size=(2, CHUNK, 16)), jnp.float32),
    )
    label = {**BATCH.labels["future_frames"], "features": features(3)}
    labels = {"future_frames": label}

    def both(module, context, labels, train):
        context = module(context, train=train)
        return module.loss(context, labels, train=train)

    init = functools.partial(module.init, method=both)
    shapes = jax.eval_shape(
        functools.partial(init, train=False), jax.random.key(0), context, labels
    )
    draw = lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), jnp.float32)  # noqa: E731
    return module, jax.tree.map(draw, shapes), (context, labels), both


@pytest.mark.parametrize("target", ["both", "stopped", "average"])
def test_only_a_two_sided_loss_moves_the_maps_through_the_future_frames(target):
    module, variables, inputs, both = alone(target=target)
    others = {key: value for key, value in variables.items() if key != "params"}

    def align(params):
        variables = {"params": params, **others}
        return module.apply(variables, *inputs, train=False, method=both)[0].mean()

    gradient = jax.jit(jax.grad(align))(variables["params"])
    assert np.abs(gradient["future"]["points"]["linear"]["kernel"]).max() > 1e-5
    # As no token reads them, the maps have no other way to the loss.
    moved = max(np.abs(x).max() for x in jax.tree.leaves(gradient["maps_shared"]))
    assert moved > 1e-6 if target == "both" else moved == 0


def test_the_average_follows_the_maps_in_training_only():
    module, variables, inputs, both = alone(target="average", decay=0.75)
    params = variables["params"]["maps_shared"]
    before = variables["average"]["average"]["params"]["shared"]

    @functools.partial(jax.jit, static_argnums=0)
    def run(train):
        _, updated = module.apply(
            variables, *inputs, train=train, mutable=["average"], method=both
        )
        return updated["average"]["average"]["params"]["shared"]

    jax.tree.map(
        lambda new, old, now: np.testing.assert_allclose(
            new, 0.75 * old + 0.25 * now, atol=1e-6
        ),
        run(True),
        before,
        params,
    )
    jax.tree.map(np.testing.assert_array_equal, run(False), before)


def test_diagnosis_has_points_of_all_attention_cameras_in_order(msact):
    model, variables, _ = msact
    found = jax.jit(
        lambda v: model.apply(
            v, BATCH.observation, BATCH.task, jax.random.key(0), method="diagnose"
        )
    )(variables)
    assert found["action"].shape == (2, CHUNK, 3)
    assert found["points"].shape == (2, 2 * POINTS, 2)
    assert found["future_points"].shape == (2, CHUNK, 2 * POINTS, 2)
    assert set(found["maps"]) == {"top", "angle"}
    for camera, start in (("top", 0), ("angle", POINTS)):
        maps = np.asarray(found["maps"][camera])
        columns = np.einsum("bkhw,w->bk", maps, np.linspace(-1, 1, maps.shape[-1]))
        x = found["points"][:, start : start + POINTS, 0]
        np.testing.assert_allclose(x, columns, atol=1e-5)
        end = start + POINTS
        for name in ("points", "future_points"):
            np.testing.assert_array_equal(
                found[f"camera_{name}"][camera], found[name][..., start:end, :]
            )
    assert np.abs(found["future_points"]).max() <= 1


@pytest.mark.parametrize(
    ("change", "extra"),
    [
        (dict(embed="per_point"), 4 * (2 * 16 + 16 + 16 * 16) - (2 * 16 + 16)),
        (dict(embed="sine"), 14 * 16),  # from 16 numbers, not two
        (dict(gather="stage1"), 4 * 16 + 16),
        # The trunk's table of positions and the map from (x, y) are not there.
        (dict(as_tokens=False), -4 * 16 - (2 * 16 + 16)),
    ],
    ids=str,
)
def test_alternatives_have_the_parameters_they_should(msact, change, extra):
    count = lambda v: sum(x.size for x in jax.tree.leaves(v["params"]))  # noqa: E731
    assert count(draw(build(config(**change)))) == count(msact[1]) + extra


def test_sine_features_are_four_octaves_of_each_coordinate():
    found = sine_features(jnp.array([[[[0.5, 0.25]]]]))[0, 0, 0]
    half = 0.5**0.5
    x = [1, 0, 0, 0, 0, -1, 1, 1]  # sines, then cosines of pi / 2, pi, 2 pi, 4 pi
    y = [half, 1, 0, 0, half, 0, -1, 1]
    np.testing.assert_allclose(found, x + y, atol=1e-6)


def test_maps_may_have_weights_of_their_own_on_every_camera():
    maps = config()["attention"][0]["maps"]["shared"]
    params = draw(build(config(maps=dict(top=maps, angle=maps))))["params"]
    assert {"maps_top", "maps_angle"} <= params["attention_0"].keys()


def test_full_size_adds_two_hundredths_of_a_million_to_act():
    from configs.act import get_config as get_act
    from configs.msact import get_config as get_msact

    def count(config, cameras):
        model = build(config.model.to_dict())
        batch = make_batch(
            batch=1, chunk=100, action_dim=14, proprio_dim=14, cameras=cameras
        )
        shape = (1, 4, 32, 32, 3)
        mask = jnp.ones((1, 4), bool)
        label = {
            "offset": jnp.ones((1, 4), jnp.int32),
            "mask": mask,
            "image": {c: jnp.zeros(shape, jnp.uint8) for c in cameras},
            "image_mask": {c: mask for c in cameras},
        }
        batch = batch.replace(labels={"future_frames": label})
        rngs = {name: jax.random.key(0) for name in ("params", "noise")}
        init = functools.partial(model.init, train=False, method="loss")
        shapes = jax.eval_shape(init, rngs, batch)["params"]
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    more = count(get_msact(), ("primary", "secondary"))
    more -= count(get_act(), ("primary",))
    assert 0.015e6 < more < 0.025e6


def test_a_point_that_never_moves_is_noticed():
    moving = jnp.array([[[[0.0, 0.0]]], [[[0.4, 0.0]]]])
    still = jnp.full((2, 1, 1, 2), 0.3)
    nothing, mask = jnp.zeros((2, 1, 2, 2)), jnp.zeros((2, 1, 2), bool)
    both = spread_metrics(jnp.concatenate([moving, still], 2), nothing, mask)
    np.testing.assert_allclose(both["std/0"], 0.05, rtol=1e-5)  # (0.1 + 0) / 2
    assert both["std/1"] == 0 and both["collapsed"] == 0
    frozen = spread_metrics(jnp.concatenate([still, still], 2), nothing, mask)
    assert frozen["collapsed"] == 1


def test_points_that_are_too_near_repel_with_a_finite_gradient():
    near = jnp.array([[[0.0, 0.0], [0.02, 0.0], [0.9, 0.9]]])
    np.testing.assert_allclose(spread_penalty(near), [0.02 / 3], rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda p: spread_penalty(p).sum()))(
        jnp.zeros((1, 2, 2))
    )
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(cameras=("side",)), r"cameras \['side'\]; the observation has"),
        (dict(maps={}), "No maps for camera 'top'"),
        (dict(embed="mlp"), "Unknown embed 'mlp'"),
        (dict(dropout=1.0), r"dropout is 1\.0; expected at least 0, below 1"),
        (
            dict(future=dict(name="future_points", chunk=9)),
            r"readouts 0 to 9, but the trunk has 5; set model\.trunk\.num_readouts",
        ),
        (
            dict(future=dict(name="future_points", chunk=5, target="ema")),
            "Unknown 'ema'",
        ),
    ],
)
def test_impossible_fields_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        draw(build(config(**change)))


def test_missing_future_frames_say_which_label_to_ask_for():
    with pytest.raises(ValueError, match=r"name='future_frames', offsets='random:4'"):
        draw(build(config()), make_batch(chunk=CHUNK, cameras=CAMERAS))
