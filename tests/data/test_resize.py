import subprocess
import sys

import numpy as np
import pytest

from vla_jax.data.resize import resize, resize_depth, resize_with_numpy


@pytest.mark.parametrize("size", [(7, 9, 20, 9), (20, 9, 7, 9), (9, 7, 9, 31)])
def test_one_axis_is_resized_to_the_bit_without_pillow(size):
    h, w, height, width = size
    image = np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)
    np.testing.assert_array_equal(
        resize_with_numpy(image, height, width), resize(image, height, width)
    )


@pytest.mark.parametrize("size", [(48, 64, 12, 12), (9, 7, 31, 20), (33, 80, 40, 17)])
def test_both_axes_differ_by_one_level_at_most(size):
    h, w, height, width = size
    image = np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)
    ours = resize_with_numpy(image, height, width)
    difference = np.abs(ours.astype(int) - resize(image, height, width))
    assert difference.max() <= 1
    assert ours.std() > 5  # it is a picture, not its mean


def test_without_pillow_images_are_resized_all_the_same():
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "import numpy as np; from vla_jax.data.resize import resize\n"
        "print(resize(np.full((4, 6, 3), 9, np.uint8), 2, 2).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str([[[9] * 3] * 2] * 2)


def test_depth_takes_the_nearest_pixel():
    depth = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert resize_depth(depth, 1, 4).tolist() == [[3.0, 3.0, 4.0, 4.0]]
