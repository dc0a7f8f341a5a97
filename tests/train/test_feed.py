"""The feed puts batches on the devices, whatever the data set is read with."""

import contextlib

import jax
import numpy as np
import pytest

from tests import fake
from vla_jax.train.feed import make_feed
from vla_jax.train.sharding import make_mesh


@pytest.mark.parametrize("source", ["index", "stream"])
def test_a_feed_goes_on_anywhere_and_repeats_its_validation(tmp_path, source):
    folder = fake.write_dataset(tmp_path)
    config = dict(
        seed=3,
        data=fake.data_config(folder, batch_size=4, prefetch=2, source=source),
        train=dict(accumulate=1, eval_batches=2),
    )
    feed = make_feed(config, make_mesh({}))
    with contextlib.closing(feed.train(0)) as batches:
        whole = [next(batches) for _ in range(5)]
    with contextlib.closing(feed.train(3)) as batches:
        assert batches.step == 3
        for expected in whole[3:]:
            batch = next(batches)
            for one, two in zip(
                jax.tree.leaves(batch), jax.tree.leaves(expected), strict=True
            ):
                np.testing.assert_array_equal(one, two)
    runs = []
    for _ in range(2):
        with contextlib.closing(feed.validation()) as batches:
            runs.append([np.asarray(batch.action) for batch in batches])
    np.testing.assert_array_equal(*runs)
    assert len(runs[0]) == 2 and feed.names == ["metaworld"]
