"""Batches of a stream hold the samples of the index, each once an epoch."""

import dataclasses
import importlib.util
import itertools
import weakref

import jax
import numpy as np
import pytest

from tests import fake
from vla_jax.data.batch import make_batch
from vla_jax.data.loader import train_batches, validation_batches
from vla_jax.data.source import open_source
from vla_jax.data.stream_batches import stream_batches
from vla_jax.data.stream_source import Stream

NEEDS_DLIMP = pytest.mark.skipif(
    importlib.util.find_spec("dlimp") is None, reason="dlimp is not installed"
)
LABELS = (
    {"name": "gripper_event"},
    {"name": "future_frames", "offsets": (1, 2), "cameras": ("wrist",)},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    lengths = (3, 5, 4, 2, 6)
    return fake.write_dataset(path, lengths=lengths, val_lengths=(2, 3), shards=3)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    path = tmp_path_factory.mktemp("other")
    return fake.write_dataset(path, lengths=(4, 3), val_lengths=(), seed=7)


def open_stream(*folders, source="stream", shuffle=8, **changes):
    config = fake.data_config(*folders, batch_size=4, labels=LABELS, **changes)
    return open_source(config | {"source": source, "stream": {"shuffle": shuffle}})


def take(batches, count):
    with batches:
        return [next(batches) for _ in range(count)]


def assert_equal(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def places(batches):
    keys = ("dataset", "episode", "step")
    columns = (np.concatenate([b[key] for b in batches]).tolist() for key in keys)
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("kind", ["stream", pytest.param("dlimp", marks=NEEDS_DLIMP)])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_sample_is_bit_equal_to_that_of_the_index(folder, kind, split):
    source = open_stream(folder, source=kind)  # there is no index yet
    index = open_source(fake.data_config(folder, batch_size=4, labels=LABELS))
    episodes = index.episodes(split)[0]
    if split == "train":
        batches = take(train_batches(source, seed=3), 12)
    else:
        batches = list(validation_batches(source, seed=3, num_batches=3))
    seen = set()
    for batch in batches:
        row = np.searchsorted(episodes.number, batch["episode"])
        sample = episodes.first_sample[row] + batch["step"]
        expected = make_batch(index, np.zeros(4, np.int32), sample, split=split)
        assert jax.tree.structure(batch) == jax.tree.structure(expected)
        assert_equal(batch, expected)
        seen |= set(sample.tolist())
    assert seen == set(range(index.sizes(split)[0]))


def test_an_epoch_holds_every_step_once_and_the_next_is_in_another_order(folder):
    batches = places(take(train_batches(open_stream(folder), seed=0), 10))
    one, two = batches[:20], batches[20:]
    assert len(set(one)) == 20 and sorted(one) == sorted(two) and one != two


def test_a_window_mixes_only_its_own_steps(folder):
    source = open_stream(folder, shuffle=1)
    order = places(take(train_batches(source, seed=0), 5))
    episodes = [episode for _, episode, _ in order]
    runs = 1 + sum(a != b for a, b in itertools.pairwise(episodes))
    assert runs == 5  # windows of one episode each
    steps = [step for _, episode, step in order if episode == 4]
    assert sorted(steps) == list(range(6)) and steps != sorted(steps)


def test_seeds_differ(folder):
    source = open_stream(folder)
    one, two = (places(take(train_batches(source, seed=s), 3)) for s in (0, 1))
    assert one != two


def test_threads_and_prefetch_do_not_change_the_batches(folder):
    source = open_stream(folder)
    expected = take(train_batches(source, seed=0), 12)
    for threads, prefetch in ((1, 0), (2, 3), (0, 2)):
        changed = open_stream(folder, num_threads=threads, prefetch=prefetch)
        for one, two in zip(
            take(train_batches(changed, seed=0), 12), expected, strict=True
        ):
            assert_equal(one, two)


@NEEDS_DLIMP
def test_dlimp_gives_the_order_of_tfdata(folder):
    one, two = (open_stream(folder, source=kind) for kind in ("stream", "dlimp"))
    one, two = (take(train_batches(source, seed=2), 12) for source in (one, two))
    for a, b in zip(one, two, strict=True):
        assert_equal(a, b)


def test_starting_anywhere_continues_the_same_order(folder, other):
    source = open_stream(folder, other, prefetch=2)
    source = dataclasses.replace(source, weights=(0.7, 0.3))
    whole = take(train_batches(source, seed=1), 22)
    for start in (0, 1, 4, 5, 17):  # in the first window, later epochs
        with train_batches(source, seed=1, start_step=start) as batches:
            for step in range(start, min(start + 4, 22)):
                assert batches.step == step
                assert_equal(next(batches), whole[step])


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_are_disjoint_and_together_complete(folder, num_hosts):
    source = open_stream(folder)
    share, found = 4 // num_hosts, []
    for host in range(num_hosts):
        size = sum(
            (3, 5, 4, 2, 6)[part.first + i]
            for part in source.streams[0].parts("train", host, num_hosts)
            for i in np.flatnonzero(part.keep)
        )
        batches = stream_batches(source, seed=0, host=host, num_hosts=num_hosts)
        batches = take(batches, -(-size // share))
        assert len(batches[0]["step"]) == share
        found += places(batches)[:size]
    assert len(found) == len(set(found)) == 20


@pytest.mark.parametrize("per_step", [False, True])
def test_a_mixture_deals_its_samples_as_an_index_does(folder, other, per_step):
    changes = dict(batch_size=4)
    common = {"spec": "metaworld", "per_step": per_step}
    datasets = (
        {"path": str(folder), "weight": 3.0, **common},
        {"path": str(other), **common},
    )
    stream = open_source(
        fake.data_config(datasets=datasets, source="stream", **changes)
    )
    index = open_source(fake.data_config(datasets=datasets, **changes))
    np.testing.assert_allclose(stream.weights, index.weights)
    one = take(train_batches(stream, seed=0), 6)
    two = take(train_batches(index, seed=0), 6)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a["dataset"], b["dataset"])


def test_at_most_three_windows_of_a_data_set_are_in_memory(folder, monkeypatch):
    alive, most, make = weakref.WeakSet(), [], Stream.window

    def window(stream, streamed):
        alive.add(made := make(stream, streamed))
        most.append(len(alive))
        return made

    source = open_stream(folder, shuffle=1, prefetch=2)
    monkeypatch.setattr(Stream, "window", window)
    take(train_batches(source, seed=0), 40)
    assert len(most) > 30 and max(most) <= 3


def test_closing_ends_the_iterator(folder):
    batches = train_batches(open_stream(folder, prefetch=2, num_threads=2), seed=0)
    next(batches)
    batches.close()
    batches.close()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_finite_batches_end(folder):
    source = open_stream(folder, prefetch=4)
    batches = validation_batches(source, seed=0, num_batches=2)
    assert len(list(batches)) == 2 and list(batches) == []


def test_without_held_out_episodes_validation_is_an_error(tmp_path):
    path = fake.write_dataset(tmp_path, lengths=(3,), val_lengths=())
    with pytest.raises(ValueError, match=r"No data set .* has validation episodes"):
        validation_batches(open_stream(path), seed=0, num_batches=1)


def test_more_hosts_than_episodes_are_refused(other):
    source = open_stream(other)
    for host in range(4):
        with pytest.raises(ValueError, match="fewer than the 4 hosts"):
            stream_batches(source, seed=0, host=host, num_hosts=4)
    with pytest.raises(ValueError, match="4 samples cannot be divided among 3 hosts"):
        stream_batches(source, seed=0, num_hosts=3)
