"""The feed puts batches on the devices, whatever the data set is read with."""

import contextlib

import jax
import numpy as np
import pytest

from tests import fake
from vla_jax.train.feed import make_feed
from vla_jax.train.resume import require_same
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


@pytest.mark.parametrize("source", ["index", "stream"])
def test_only_an_index_is_resumed_on_another_number_of_hosts(
    tmp_path, source, monkeypatch
):
    folder = fake.write_dataset(tmp_path)
    config = dict(
        seed=3,
        data=fake.data_config(folder, batch_size=4, source=source),
        train=dict(accumulate=1, eval_batches=2),
    )
    before = make_feed(config, make_mesh({}))
    monkeypatch.setattr("vla_jax.train.feed.data_share", lambda *_: (0, 2))
    after = make_feed(config, make_mesh({}))
    if source == "index":
        require_same(before.metadata, after.metadata, "data set", tmp_path)
        return
    message = r"num_hosts: 1 -> 2\n.*another order.*data.source='index'"
    with pytest.raises(ValueError, match=message):
        require_same(before.metadata, after.metadata, "data set", tmp_path)


def test_a_feed_counts_what_has_been_seen(tmp_path):
    folder = fake.write_dataset(tmp_path, lengths=(3, 5, 4))
    config = dict(
        seed=3,
        data=fake.data_config(folder, batch_size=4),
        train=dict(accumulate=1, eval_batches=2),
    )
    feed = make_feed(config, make_mesh({}))
    assert feed.seen(2) == [("metaworld", 8, 8 / 12, 8 / 12)]
    assert feed.seen(6) == [("metaworld", 24, 1.0, 2.0)]


@pytest.mark.parametrize(
    ("head", "looks"),
    [
        (dict(gripper_dims=(3,)), True),
        (dict(anchor=dict(gripper_dims=(3,)), refine=dict(gripper_dims=(3,))), True),
        (dict(gripper_dims=()), False),
    ],
)
def test_data_of_a_head_that_decides_are_looked_at(tmp_path, monkeypatch, head, looks):
    looked = []
    monkeypatch.setattr("vla_jax.train.feed.warn_undecided", looked.append)
    config = dict(
        seed=3,
        data=fake.data_config(fake.write_dataset(tmp_path), batch_size=4),
        train=dict(accumulate=1, eval_batches=2),
        model=dict(head=head),
    )
    make_feed(config, make_mesh({}))
    assert bool(looked) == looks
