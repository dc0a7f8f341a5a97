import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch
from vla_jax.models.augment import augment_image, make_augment


def test_shift_moves_every_frame_of_an_example_alike_and_repeats_edges():
    image = jnp.arange(4.0)[None, None, None, :, None] * jnp.ones((1, 2, 4, 1, 3))
    rows = {
        tuple(
            np.asarray(augment_image(jax.random.key(i), image, shift=1))[0, 1, 0, :, 0]
        )
        for i in range(30)
    }
    assert rows == {(0, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 3)}
    out = augment_image(jax.random.key(3), image, shift=1)
    np.testing.assert_array_equal(out[:, 0], out[:, 1])


def test_nothing_on_leaves_the_batch_untouched():
    batch = make_batch()
    out = make_augment({})(jax.random.key(0), batch)
    np.testing.assert_array_equal(
        out.observation.image["wrist"], batch.observation.image["wrist"]
    )
    assert out.observation.image["wrist"].dtype == jnp.uint8


def test_brightness_stays_within_its_range_and_the_pixel_range():
    image = jnp.full((64, 1, 2, 2, 3), 250.0)
    out = augment_image(jax.random.key(0), image, brightness=0.1)
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
