"""Maps and points: soft-argmax, gates and keys, and both readings of the stages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.attention_maps import (
    ConvStages,
    InstanceNorm,
    LevelStages,
    MultistageMaps,
    cells_in_use,
    expected_position,
    resize_area,
    spatial_softmax,
)
from vla_jax.models.build import build

RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.uniform(-1, 1, (2, 32, 48, 3)), jnp.float32)
LEVELS = {
    "stem": jnp.asarray(RNG.standard_normal((2, 8, 12, 4)), jnp.float32),
    "layer1": jnp.asarray(RNG.standard_normal((2, 8, 12, 4)), jnp.float32),
    "layer2": jnp.asarray(RNG.standard_normal((2, 4, 6, 8)), jnp.float32),
    "layer3": jnp.asarray(RNG.standard_normal((2, 2, 3, 16)), jnp.float32),
}


def run(module, image=IMAGE, levels=LEVELS, seed=0):
    variables = jax.jit(module.init)(jax.random.key(seed), image, levels)
    return variables["params"], jax.jit(module.apply)(variables, image, levels)


def bump(x, y, sigma=4.0):
    rows, columns = np.mgrid[:120, :160]
    value = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return jnp.asarray(value[None, None], jnp.float32)


@pytest.mark.parametrize("temperature", [1e-3, 0.05])
@pytest.mark.parametrize(("x", "y"), [(40.0, 30.0), (101.3, 77.8)])
def test_a_gaussian_bump_gives_its_center_within_half_a_pixel(x, y, temperature):
    point = expected_position(spatial_softmax(bump(x, y), temperature))[0, 0]
    column, row = (point + 1) / 2 * np.array([159, 119])
    assert abs(column - x) < 0.5 and abs(row - y) < 0.5


@pytest.mark.parametrize("temperature", [1e-3, 0.05])
def test_the_gradient_is_finite_also_when_the_softmax_is_sharp(temperature):
    def position(logits):
        return expected_position(spatial_softmax(logits, temperature)).sum()

    gradient = jax.grad(position)(bump(50.0, 60.0))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_corners_are_one_and_x_is_the_column():
    maps = jnp.zeros((1, 3, 3, 5))
    maps = maps.at[0, 0, 0, 0].set(1).at[0, 1, 0, 4].set(1).at[0, 2, 1, 2].set(1)
    np.testing.assert_allclose(
        expected_position(maps)[0], [[-1, -1], [1, -1], [0, 0]], atol=1e-6
    )


def test_every_map_sums_to_one_at_the_resolution_of_the_finest_stage():
    params, maps = run(MultistageMaps(LevelStages(), num_points=5))
    assert maps.shape == (2, 5, 8, 12)
    np.testing.assert_allclose(maps.sum((2, 3)), 1, rtol=1e-5)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 500


def test_the_maps_are_the_mean_over_stages_of_gated_keys():
    """The formula once more in NumPy, without norms and with one stage."""
    module = MultistageMaps(
        LevelStages(("layer1",)), num_points=2, norm="none", temperature=0.5
    )
    params, maps = run(module)
    params = jax.tree.map(np.asarray, params)

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    key = dense("key", np.asarray(IMAGE).reshape(2, 8, 4, 12, 4, 3).mean((2, 4)))
    gate = 1 / (1 + np.exp(-dense("query_0", np.asarray(LEVELS["layer1"]))))
    logits = dense("mix", key * gate)
    logits = np.where(logits > 0, logits, 0.3 * logits) / 0.5
    weights = np.exp(logits - logits.max((1, 2), keepdims=True))
    expected = weights / weights.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(maps, expected.transpose(0, 3, 1, 2), rtol=1e-4)


def test_each_stage_matters():
    module = MultistageMaps(LevelStages())
    variables = jax.jit(module.init)(jax.random.key(0), IMAGE, LEVELS)
    apply = jax.jit(module.apply)
    before = apply(variables, IMAGE, LEVELS)
    for name in ("layer1", "layer2", "layer3"):
        other = {**LEVELS, name: LEVELS[name][:, ::-1]}
        assert np.abs(apply(variables, IMAGE, other) - before).max() > 1e-4
    assert np.abs(apply(variables, IMAGE[:, ::-1], LEVELS) - before).max() > 1e-4


@pytest.mark.parametrize(
    "change",
    [
        dict(key="stem"),
        dict(combine="concat"),
        dict(norm="none", temperature=1e-3),
        dict(stages=dict(name="conv_stages", reduce=4)),
        dict(stages=dict(name="conv_stages", source="layer1", widths=(4, 4))),
    ],
    ids=str,
)
def test_the_alternatives_give_maps_too(change):
    stages = dict(name="level_stages")
    module = build(dict(name="multistage_maps") | dict(stages=stages) | change)
    init = functools.partial(module.init, jax.random.key(0))
    variables = jax.eval_shape(init, IMAGE, LEVELS)
    maps = jax.eval_shape(module.apply, variables, IMAGE, LEVELS)
    assert maps.shape == (2, 6, 8, 12)
    levels = {name: LEVELS[name] for name in module.encoder_levels}
    jax.eval_shape(module.apply, variables, IMAGE, levels)  # needs no others


def test_its_own_stages_read_no_features():
    assert MultistageMaps(ConvStages()).encoder_levels == ()
    assert MultistageMaps(LevelStages(), key="stem").encoder_levels == (
        *("layer1", "layer2", "layer3"),
        "stem",
    )


def test_points_start_on_the_ends_of_the_opponent_colors():
    white, red, yellow = (1, 1, 1), (1, -1, -1), (1, 1, -1)
    black, green, blue = (-1, -1, -1), (-1, 1, -1), (-1, -1, 1)
    image = np.zeros((1, 32, 48, 3), np.float32)
    for place, color in enumerate((white, red, yellow, black, green, blue)):
        image[:, 4:8, 8 * place : 8 * place + 4] = color  # one cell of the maps
    module = MultistageMaps(LevelStages(), temperature=0.3, start="opponent")
    levels = {name: level[:1] for name, level in LEVELS.items()}
    for seed in range(3):
        _, maps = run(module, jnp.asarray(image), levels, seed)
        cells = np.argmax(maps.reshape(6, -1), axis=1)
        np.testing.assert_array_equal(cells, 12 * 1 + 2 * np.arange(6))


def test_instance_norm_makes_every_channel_of_every_image_alike():
    module = InstanceNorm()
    x = 5 + 3 * LEVELS["layer1"]
    y = module.apply(module.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((1, 2)), 1, atol=1e-4)


def test_cells_in_use_are_one_for_a_peak_and_all_for_an_even_map():
    peak, even = jnp.zeros((3, 4)).at[1, 2].set(1), jnp.full((3, 4), 1 / 12)
    maps = jnp.stack([peak, even])[None, None]
    np.testing.assert_allclose(cells_in_use(maps), (1 + 12) / 2, rtol=1e-5)


def test_area_resizing_averages_blocks_and_keeps_a_constant():
    image = jnp.arange(8.0).reshape(1, 2, 4, 1)
    np.testing.assert_allclose(resize_area(image, 1, 2)[0, 0, :, 0], [2.5, 4.5])
    odd = resize_area(jnp.full((1, 7, 5, 1), 3.0), 2, 2)
    np.testing.assert_allclose(odd, np.full((1, 2, 2, 1), 3.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(start="color"), "Unknown 'color'"),
        (
            dict(start="opponent", key="stem"),
            "start='opponent' needs key='image' and combine='mean', got 'stem'",
        ),
        (dict(combine="sum"), "Unknown 'sum'"),
        (dict(norm="batch"), "Unknown 'batch'"),
        (dict(temperature=0.0), "temperature is 0.0"),
        (dict(key="layer9"), "Unknown feature level 'layer9'"),
    ],
)
def test_impossible_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        module = MultistageMaps(LevelStages(), **fields)
        module.init(jax.random.key(0), IMAGE, LEVELS)
