"""The pipelines of TensorFlow load what the data set holds, pixel for pixel."""

import numpy as np
import pytest

from tests import fake
from vla_jax.benchmark.tfdata import Pipeline, dlimp_batches, tfdata_batches
from vla_jax.data.image import decode

LENGTHS = (3, 5, 4)


@pytest.mark.parametrize("make", [tfdata_batches, dlimp_batches])
@pytest.mark.parametrize("window", [1, 2])
def test_samples_are_whole_and_an_epoch_has_each_of_them(tmp_path, make, window):
    pytest.importorskip("tensorflow")
    if make is dlimp_batches:
        pytest.importorskip("dlimp")
    folder = fake.write_dataset(tmp_path, lengths=LENGTHS)
    index = fake.open_index(folder)
    cameras = {
        "primary": "steps/observation/image",
        "wrist": "steps/observation/wrist_image",
    }
    batches = make(Pipeline(str(folder), cameras, window, 3, 4, 2, 1, 5))
    seen = set()
    for _ in range(12):
        batch = next(batches)
        assert batch["image"]["wrist"].shape == (4, window, 8, 8, 3)
        assert batch["steps/action"].shape == (4, 3, 4)
        for row in range(4):
            action, mask = batch["steps/action"][row], batch["action_mask"][row]
            episode, step = np.rint(action[0, :2] * 100).astype(int)
            seen.add((episode, step))
            last = LENGTHS[episode] - 1
            for k in range(3):
                expected = fake.action(episode, min(step + k, last))
                np.testing.assert_array_equal(action[k], expected)
            np.testing.assert_array_equal(mask, step + np.arange(3) <= last)
            for camera, images in batch["image"].items():
                for t in range(window):
                    past = max(step + t + 1 - window, 0)
                    number = int(index.first_step[episode]) + past
                    picture = decode(index.read_image(camera, number))
                    np.testing.assert_array_equal(images[row, t], picture)
    assert len(seen) == sum(LENGTHS)
