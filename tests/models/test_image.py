import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.image import ConvEncoder, GridTokens, PointTokens, scale_pixels


def test_pixels_are_scaled_to_minus_one_and_one():
    image = jnp.array([0, 255], jnp.uint8)
    np.testing.assert_allclose(scale_pixels(image), [-1.0, 1.0])


def test_levels_shrink_by_patch_and_strides():
    encoder = ConvEncoder(patch=4, widths=(2, 3, 5), strides=(2, 1))
    levels, _ = encoder.init_with_output(
        jax.random.key(0), jnp.zeros((1, 16, 24, 3)), train=False
    )
    shapes = {name: level.shape for name, level in levels.items()}
    assert shapes == {
        "stem": (1, 4, 6, 2),
        "stage1": (1, 2, 3, 3),
        "stage2": (1, 2, 3, 5),
    }


def test_image_that_does_not_fit_the_patch_names_both():
    with pytest.raises(ValueError, match=r"16x18.*patch=4"):
        ConvEncoder().init(jax.random.key(0), jnp.zeros((1, 16, 18, 3)), train=False)


def test_unknown_level_lists_the_levels():
    tokens = GridTokens(level="layer3", width=4)
    with pytest.raises(ValueError, match=r"'layer3'.*\['stem'\]"):
        tokens.init(
            jax.random.key(0),
            {"stem": jnp.zeros((1, 1, 2, 2, 3))},
            jnp.ones((1, 1), bool),
        )


def test_point_follows_a_bright_cell():
    tokens = PointTokens(level="x", width=2, num_points=1, num_tokens=1)
    cold = jnp.zeros((1, 1, 3, 5, 1))
    mask = jnp.ones((1, 1), bool)
    variables = tokens.init(jax.random.key(0), {"x": cold}, mask)
    params = variables["params"]
    params["maps"]["kernel"] = jnp.full((1, 1), 50.0)
    # Reads x and y of the point, nothing else.
    project = jnp.zeros(params["project"].shape).at[0, 0, 0].set(1).at[0, 1, 1].set(1)
    params["project"] = project
    for row, column, expected in [(0, 0, [-1, -1]), (2, 4, [1, 1]), (1, 2, [0, 0])]:
        hot = cold.at[0, 0, row, column].set(1.0)
        found = tokens.apply(variables, {"x": hot}, mask).values
        np.testing.assert_allclose(found[0, 0, 0], expected, atol=1e-3)


def test_point_tokens_of_a_missing_image_are_masked():
    tokens = PointTokens(level="x", width=2, num_points=4, num_tokens=2)
    level = {"x": jnp.ones((1, 2, 2, 2, 3))}
    mask = jnp.array([[True, False]])
    out, _ = tokens.init_with_output(jax.random.key(0), level, mask)
    np.testing.assert_array_equal(out.mask, [[[True, True], [False, False]]])
