import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch
from vla_jax.models.augment import (
    Augmentation,
    augment_image,
    draw_augmentation,
    make_augment,
    shift_intrinsics,
)


def test_shift_moves_every_frame_of_an_example_alike_and_repeats_edges():
    image = jnp.arange(4.0)[None, None, None, :, None] * jnp.ones((1, 2, 4, 1, 3))
    rows = set()
    for seed in range(30):
        draw = draw_augmentation(jax.random.key(seed), 1, shift=1)
        out = np.asarray(augment_image(draw, image))
        np.testing.assert_array_equal(out[:, 0], out[:, 1])
        rows.add(tuple(out[0, 1, 0, :, 0]))
    assert rows == {(0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 3)}


def test_principal_point_follows_its_pixel():
    image = jnp.zeros((1, 1, 6, 8, 3)).at[0, 0, 2, 5].set(1.0)
    draw = Augmentation(2, jnp.array([[3, 0]]), None, None)
    row, column = np.argwhere(np.asarray(augment_image(draw, image))[0, 0, ..., 0])[0]
    intrinsics = jnp.array([[[[9.0, 0, 5], [0, 9, 2], [0, 0, 1]]]])
    moved = shift_intrinsics(draw, intrinsics)[0, 0]
    np.testing.assert_array_equal(moved, [[9, 0, column], [0, 9, row], [0, 0, 1]])
    assert (row, column) == (1, 7)


def test_unknown_intrinsics_stay_zero():
    draw = Augmentation(1, jnp.array([[0, 0]]), None, None)
    np.testing.assert_array_equal(
        shift_intrinsics(draw, jnp.zeros((1, 1, 3, 3))), np.zeros((1, 1, 3, 3))
    )


def test_depth_and_label_images_get_the_draw_of_their_camera():
    batch = make_batch()
    image = batch.observation.image["wrist"]
    batch = batch.replace(
        observation=batch.observation.replace(depth={"wrist": image[..., 0]}),
        labels={"future_frames": {"image": {"wrist": image}, "mask": jnp.ones(2)}},
    )
    out = make_augment({"shift": 3})(jax.random.key(0), batch)
    moved = out.observation.image["wrist"]
    assert np.any(moved != image)
    np.testing.assert_array_equal(out.observation.depth["wrist"], moved[..., 0])
    label = out.labels["future_frames"]
    np.testing.assert_array_equal(label["image"]["wrist"], moved)
    np.testing.assert_array_equal(label["mask"], [1, 1])


def test_nothing_on_leaves_the_batch_untouched():
    batch = make_batch()
    out = make_augment({})(jax.random.key(0), batch)
    np.testing.assert_array_equal(
        out.observation.image["wrist"], batch.observation.image["wrist"]
    )
    assert out.observation.image["wrist"].dtype == jnp.uint8


def test_brightness_stays_within_its_range_and_the_pixel_range():
    image = jnp.full((64, 1, 2, 2, 3), 250.0)
    draw = draw_augmentation(jax.random.key(0), 64, brightness=0.1)
    out = augment_image(draw, image)
    assert out.max() <= 255.0
    assert 250 - 25.5 <= out.min() < 240


def test_each_camera_has_its_own_strength():
    batch = make_batch()
    augment = make_augment({"default": {}, "wrist": {"brightness": 0.5}})
    out = augment(jax.random.key(0), batch).observation.image
    np.testing.assert_array_equal(out["primary"], batch.observation.image["primary"])
    assert np.abs(out["wrist"] - batch.observation.image["wrist"]).max() > 1


def test_unknown_camera_is_named():
    augment = make_augment({"default": {}, "wirst": {"shift": 1}})
    with pytest.raises(ValueError, match=r"\['wirst'\].*\['primary', 'wrist'\]"):
        augment(jax.random.key(0), make_batch())


def test_unknown_strength_is_named():
    with pytest.raises(ValueError, match="'hue'"):
        make_augment({"hue": 0.1})
