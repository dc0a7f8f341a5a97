"""Episodes read by TensorFlow are those of the index, in an order that is stated."""

import importlib.util
import itertools
import sys

import numpy as np
import pytest

from tests import fake
from vla_jax.data import stream
from vla_jax.data.rlds import open_rlds
from vla_jax.data.standardize import DATASETS
from vla_jax.data.stream import plan_parts, read_episodes

SPEC = DATASETS["metaworld"]
needs_dlimp = pytest.mark.skipif(
    importlib.util.find_spec("dlimp") is None, reason="dlimp is not installed"
)
BACKENDS = ["stream", pytest.param("dlimp", marks=needs_dlimp)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    lengths = (3, 5, 4, 2, 6)
    return open_rlds(fake.write_dataset(path, lengths=lengths, shards=3))


def numbers(folder, parts, **options):
    return [e.number for e in read_episodes(folder, parts, **options)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_episodes_are_numbered_and_filled_as_in_an_index(folder, backend):
    index = fake.open_index(folder.path)
    for split in ("train", "val"):
        parts = plan_parts(folder, SPEC, split)
        episodes = list(read_episodes(folder, parts, backend=backend, cycle=1))
        found = [episode.number for episode in episodes]
        assert found == index.split_episodes(split).tolist()
        for episode in episodes:
            first = index.first_step[episode.number]
            action = episode.raw.arrays["steps/action"]
            np.testing.assert_array_equal(
                action[:, :3], index.action[first : first + len(action), :3]
            )
            start, length = episode.raw.images["steps/observation/image"][1]
            image = episode.payload[start : start + length]
            assert image == index.read_image("primary", first + 1)
            task = f"task-{episode.number % 3}".encode()
            assert episode.raw.metadata["episode_metadata/task"] == task
            text = episode.raw.text["steps/language_instruction"]
            instruction = fake.INSTRUCTIONS[episode.number % 3].encode()
            assert text == [instruction] * len(action)


@pytest.mark.parametrize("backend", BACKENDS)
def test_open_shards_take_turns_with_any_number_of_threads(folder, backend):
    parts = plan_parts(folder, SPEC, "train")
    assert [part.first for part in parts] == [0, 2, 4]
    for threads in (1, 2):
        options = dict(backend=backend, num_threads=threads)
        assert numbers(folder, parts, cycle=1, **options) == [0, 1, 2, 3, 4]
        assert numbers(folder, parts, cycle=2, **options) == [0, 2, 1, 3, 4]
        assert numbers(folder, parts, cycle=9, **options) == [0, 2, 4, 1, 3]


@pytest.mark.parametrize("num_hosts", [1, 2, 3, 4, 5])
def test_hosts_divide_shards_or_else_episodes(folder, num_hosts):
    found = []
    for host in range(num_hosts):
        parts = plan_parts(folder, SPEC, "train", host=host, num_hosts=num_hosts)
        found.append(numbers(folder, parts))
    assert sorted(itertools.chain(*found)) == [0, 1, 2, 3, 4]
    assert all(found)
    if num_hosts == 3:  # as many as shards
        assert found == [[0, 1], [2, 3], [4]]


def test_held_out_episodes_are_those_of_the_index(tmp_path):
    folder = open_rlds(
        fake.write_dataset(tmp_path, lengths=(3, 5, 4, 2, 6), val_lengths=())
    )
    index = fake.open_index(folder.path)
    for split in ("train", "val"):
        parts = plan_parts(folder, SPEC, split)
        expected = index.split_episodes(split).tolist()
        assert numbers(folder, parts, cycle=1) == expected


def test_a_damaged_shard_is_named(tmp_path):
    folder = open_rlds(fake.write_dataset(tmp_path, lengths=(3, 5, 4)))
    path = folder.splits["train"][0].path
    with open(path, "r+b") as file:
        file.seek(-20, 2)
        file.write(b"damaged")
    parts = plan_parts(folder, SPEC, "train")
    with pytest.raises(ValueError, match=r"00000-of-00002 at byte \d+: the checksum"):
        numbers(folder, parts)


def test_a_shard_with_another_number_of_episodes_is_refused(tmp_path):
    folder = open_rlds(fake.write_dataset(tmp_path, lengths=(3, 5, 4)))
    one, two = (shard.path for shard in folder.splits["train"])
    with open(one, "rb") as full, open(two, "rb") as half:
        contents = full.read(), half.read()
    parts = plan_parts(folder, SPEC, "train")
    with open(one, "wb") as file:
        file.write(contents[1])
    with pytest.raises(ValueError, match="ends after 1 of 2 episodes"):
        numbers(folder, parts)
    with open(one, "wb") as file:
        file.write(contents[0] + contents[1])
    with pytest.raises(ValueError, match="holds more than the 2 episodes"):
        numbers(folder, parts)


def test_without_tensorflow_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    stream._import_tensorflow.cache_clear()
    with pytest.raises(ImportError, match=r"vla_jax\[tf\].*data.source='index'"):
        numbers(folder, plan_parts(folder, SPEC, "train"))
    stream._import_tensorflow.cache_clear()


def test_without_dlimp_the_command_that_installs_it_is_named(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps git.*data.source="):
        numbers(folder, plan_parts(folder, SPEC, "train"), backend="dlimp")
