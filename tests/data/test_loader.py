"""The loader gives batch i for step i, ends cleanly, and passes errors on."""

import dataclasses
import gc
import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import fake
from vla_jax.data.loader import to_device, train_batches, validation_batches
from vla_jax.data.source import open_source
from vla_jax.types import Batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    return fake.write_dataset(path, lengths=(3, 5, 4), val_lengths=(2, 3))


@pytest.fixture(scope="module")
def source(folder):
    return open_source(
        fake.data_config(folder, batch_size=4, num_threads=2, prefetch=2)
    )


def take(batches, count):
    with batches:
        return [next(batches) for _ in range(count)]


def assert_equal(one, two):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def started_threads():
    names = ("decode", "grain-prefetch", "to-device")
    return [t for t in threading.enumerate() if t.name.startswith(names)]


def wait_for_threads_to_end():
    for _ in range(100):
        if not started_threads():
            return
        time.sleep(0.05)
    raise AssertionError(f"Threads did not end: {started_threads()}")


def test_starting_anywhere_continues_the_same_order(source):
    whole = take(train_batches(source, seed=1), 6)
    for start in (0, 2, 5):
        with train_batches(source, seed=1, start_step=start) as batches:
            for step in range(start, 6):
                assert batches.step == step
                assert_equal(next(batches), whole[step])


def test_threads_and_prefetch_do_not_change_the_batches(source):
    expected = take(train_batches(source, seed=0), 70)  # beyond one block of samples
    for threads, prefetch in ((0, 0), (3, 5), (0, 2), (2, 0)):
        other = dataclasses.replace(source, num_threads=threads, prefetch=prefetch)
        actual = take(train_batches(other, seed=0), 70)
        for one, two in zip(actual, expected, strict=True):
            assert_equal(one, two)


def test_an_epoch_holds_every_step_once(source):
    batches = take(train_batches(source, seed=5), 3)
    episodes = np.concatenate([batch["episode"] for batch in batches])
    steps = np.concatenate([batch["step"] for batch in batches])
    places = list(zip(episodes.tolist(), steps.tolist(), strict=True))
    assert len(places) == len(set(places)) == sum(source.sizes("train"))


def test_seeds_differ(source):
    one, two = (take(train_batches(source, seed=s), 3) for s in (0, 1))
    assert any(np.any(a["step"] != b["step"]) for a, b in zip(one, two, strict=True))


def test_hosts_load_parts_of_the_same_batch(source):
    whole = take(train_batches(source, seed=0), 2)
    parts = [
        take(train_batches(source, seed=0, host=host, num_hosts=2), 2)
        for host in range(2)
    ]
    for step in range(2):
        for key in ("episode", "step", "action"):
            together = np.concatenate([part[step][key] for part in parts])
            np.testing.assert_array_equal(together, whole[step][key])


@pytest.mark.parametrize("num_hosts", [1, 2, 4, 8])
def test_any_number_of_hosts_goes_on_where_one_stopped(source, num_hosts):
    source = dataclasses.replace(source, batch_size=8)
    whole = take(train_batches(source, seed=0, start_step=2), 3)
    hosts = [
        take(
            train_batches(source, seed=0, start_step=2, host=h, num_hosts=num_hosts), 3
        )
        for h in range(num_hosts)
    ]
    for step in range(3):
        parts = [jax.tree.leaves(batches[step]) for batches in hosts]
        expected = jax.tree.leaves(whole[step])
        for *part, one in zip(*parts, expected, strict=True):
            np.testing.assert_array_equal(np.concatenate(part), one)


def test_validation_is_the_same_every_time_and_held_out(source):
    runs = [list(validation_batches(source, seed=0, num_batches=3)) for _ in range(2)]
    assert len(runs[0]) == 3
    for one, two in zip(*runs, strict=True):
        assert_equal(one, two)
    held_out = set(source.episodes("validation")[0].number.tolist())
    assert {e for b in runs[0] for e in b["episode"].tolist()} <= held_out
    wait_for_threads_to_end()


def test_validation_without_held_out_episodes_is_an_error(tmp_path):
    folder = fake.write_dataset(tmp_path, lengths=(3,), val_lengths=())
    source = open_source(fake.data_config(folder))
    assert source.sizes("validation") == (0,)
    with pytest.raises(ValueError, match="has validation episodes"):
        validation_batches(source, seed=0, num_batches=1)


def test_closing_ends_all_threads(source):
    batches = train_batches(source, seed=0)
    next(batches)
    assert started_threads()
    batches.close()
    batches.close()
    wait_for_threads_to_end()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def broken(source):
    """The same source with one wrist image cut short: episode 1, step 2."""
    kind, arguments = source.indexes[0].__reduce__()
    index = kind(*arguments)
    spans = np.array(index.image_spans["wrist"])
    spans[int(index.first_step[1]) + 2, 2] -= 30
    index.image_spans = {**index.image_spans, "wrist": spans}
    return dataclasses.replace(source, indexes=(index,))


@pytest.mark.parametrize("on_device", [False, True])
def test_an_error_in_a_thread_surfaces_as_it_is(source, on_device):
    batches = train_batches(broken(source), seed=0)
    if on_device:
        batches = to_device(
            batches, jax.sharding.SingleDeviceSharding(jax.devices()[0])
        )
    with batches, pytest.raises(ValueError, match="'wrist', episode 1, step 2 cannot"):
        for _ in range(4):
            next(batches)
    wait_for_threads_to_end()


def data_sharding():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("data"))


def test_device_batches_are_the_host_batches_sharded(source):
    expected = take(train_batches(source, seed=0), 5)
    with to_device(train_batches(source, seed=0), data_sharding()) as batches:
        for step in range(5):
            assert batches.step == step
            batch = next(batches)
            assert isinstance(batch, Batch)
            image = batch.observation.image["primary"]
            assert image.sharding.is_equivalent_to(data_sharding(), image.ndim)
            assert image.addressable_shards[0].data.shape[0] == 2
            np.testing.assert_array_equal(
                image, expected[step]["observation"]["image"]["primary"]
            )
            np.testing.assert_array_equal(batch.action, expected[step]["action"])
    wait_for_threads_to_end()


def test_device_batches_keep_their_pixels_while_others_are_made(source):
    expected = take(train_batches(source, seed=0), 12)
    with to_device(train_batches(source, seed=0), data_sharding()) as batches:
        kept = [next(batches) for _ in range(12)]
    gc.collect()
    for one, two in zip(kept, expected, strict=True):
        for camera, image in one.observation.image.items():
            np.testing.assert_array_equal(image, two["observation"]["image"][camera])


def test_finite_batches_end_on_the_device_too(source):
    batches = validation_batches(source, seed=0, num_batches=2)
    with to_device(batches, data_sharding()) as on_device:
        assert len(list(on_device)) == 2
        assert list(on_device) == []
    with pytest.raises(ValueError, match="closed"):
        next(on_device)


def test_what_hosts_cannot_share_is_refused_before_the_first_batch(source):
    with pytest.raises(ValueError, match="4 samples cannot be divided among 3 hosts"):
        train_batches(source, seed=0, num_hosts=3)
