"""Damaged records are left out of a stream, or refused, exactly as by an index."""

import importlib.util
import io
import pickle

import jax
import numpy as np
import pytest

from tests import fake
from vla_jax.data.loader import train_batches
from vla_jax.data.rlds import open_rlds
from vla_jax.data.source import open_source
from vla_jax.data.standardize import DATASETS
from vla_jax.data.stream import plan_parts, read_episodes
from vla_jax.data.tfrecord import CorruptRecord, count_records, write_record

SPEC = DATASETS["metaworld"]
NEEDS_DLIMP = pytest.mark.skipif(
    importlib.util.find_spec("dlimp") is None, reason="dlimp is not installed"
)
LENGTHS = (3, 5, 4, 2, 6, 2)


def flip(data: bytes, byte: int) -> bytes:
    return data[:byte] + bytes([data[byte] ^ 0xFF]) + data[byte + 1 :]


def second(data: bytes) -> int:
    """Where the second record starts."""
    return 12 + int.from_bytes(data[:8], "little") + 4


def not_an_example(data: bytes) -> bytes:
    file = io.BytesIO()
    write_record(file, b"no example")
    return file.getvalue() + data[second(data) :]


DAMAGES = {
    "payload of the first": lambda data: flip(data, 1000),
    "payload of the second": lambda data: flip(data, second(data) + 500),
    "both payloads": lambda data: flip(flip(data, 1000), second(data) + 500),
    "length of the second": lambda data: flip(data, second(data)),
    "cut within the second": lambda data: data[: second(data) + 100],
    "cut after the first": lambda data: data[: second(data)],
    "empty": lambda data: b"",
    "no example": not_an_example,
}


@pytest.fixture(params=DAMAGES)
def folder(request, tmp_path):
    """Three shards of two episodes, the middle one damaged."""
    folder = fake.write_dataset(tmp_path, lengths=LENGTHS, val_lengths=(), shards=3)
    shard = folder / "fake-train.tfrecord-00001-of-00003"
    assert count_records(shard.read_bytes(), "shard") == 2
    shard.write_bytes(DAMAGES[request.param](shard.read_bytes()))
    return folder


@pytest.mark.parametrize("kind", ["stream", pytest.param("dlimp", marks=NEEDS_DLIMP)])
def test_the_same_is_left_out_for_the_same_reasons(folder, kind):
    opened, met = open_rlds(folder), []
    index = fake.open_index(folder, skip_corrupt=True)
    for split in ("train", "val"):
        parts = plan_parts(opened, SPEC, split)
        episodes = read_episodes(
            opened, parts, backend=kind, cycle=1, on_corrupt=met.append
        )
        found = [e.raw.arrays["steps/action"][:, 0] for e in episodes]
        expected = [
            index.action[index.first_step[i] :][: index.num_episode_steps[i], 0]
            for i in index.split_episodes(split)
        ]
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, two)
    for error in met:
        text = f"{error.shard.rpartition('/')[2]} at byte {error.offset}: "
        assert any(text + error.reason in line for line in index.corrupt)
    assert {e.offset for e in met} and len(index.corrupt) == len(
        {(e.shard, e.offset, e.reason) for e in met}
    )


@pytest.mark.parametrize("kind", ["stream", pytest.param("dlimp", marks=NEEDS_DLIMP)])
def test_the_error_is_that_of_the_index(folder, kind):
    with pytest.raises(CorruptRecord) as expected:
        fake.open_index(folder)
    opened = open_rlds(folder)
    with pytest.raises(CorruptRecord, match=r"data\.stream\.skip_corrupt") as error:
        for split in ("train", "val"):
            parts = plan_parts(opened, SPEC, split)
            list(read_episodes(opened, parts, backend=kind, cycle=1))
    assert str(error.value) == str(expected.value)


def test_training_skips_and_says_so_once(folder, capsys):
    stream = {"shuffle": 4, "skip_corrupt": True}
    config = fake.data_config(folder, source="stream", stream=stream)
    source = open_source(config)
    with train_batches(source, seed=0) as batches:
        steps = [next(batches) for _ in range(30)]  # about three epochs
    index = fake.open_index(folder, skip_corrupt=True)
    assert source.sizes("train") == (index.counts["steps"]["train"],)
    assert source.metadata() == open_source(fake.data_config(folder)).metadata()
    assert open_source(config).metadata() == source.metadata()  # from the index
    assert source.statistics[0]["action"].to_json() == (
        index.statistics["action"].to_json()
    )
    pairs = {
        place
        for batch in steps
        for place in zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)
    }
    assert len(pairs) == index.counts["steps"]["train"]
    said = capsys.readouterr().out
    assert 1 <= said.count("Left out: ") == len(set(said.split("Left out: ")[1:])) <= 2


def test_a_stream_without_any_sound_episode_is_refused(tmp_path):
    folder = fake.write_dataset(tmp_path, lengths=(3, 4), val_lengths=(), shards=1)
    shard = next(folder.glob("*.tfrecord*"))
    config = fake.data_config(folder, source="stream", stream={"skip_corrupt": True})
    source = open_source(config)
    shard.write_bytes(b"")
    batches = train_batches(source, seed=0)
    with pytest.raises(ValueError, match="all 1 of its shards are damaged"):
        next(batches)
    with pytest.raises(ValueError, match="no training episode that can be read"):
        open_source(config)


def test_skipping_is_yes_or_no(tmp_path):
    folder = fake.write_dataset(tmp_path)
    config = fake.data_config(folder, source="stream", stream={"skip_corrupt": 1})
    with pytest.raises(ValueError, match="skip_corrupt is 1; expected True or False"):
        open_source(config)


def test_a_pickled_source_gives_the_same_batches(tmp_path):
    folder = fake.write_dataset(tmp_path, lengths=(3, 5, 4))
    source = open_source(fake.data_config(folder, source="stream"))
    copy = pickle.loads(pickle.dumps(source))
    assert copy.metadata() == source.metadata()
    with train_batches(source, seed=1) as one, train_batches(copy, seed=1) as two:
        for _ in range(5):
            x, y = (jax.tree.leaves(next(batches)) for batches in (one, two))
            jax.tree.map(np.testing.assert_array_equal, x, y)
    assert len(pickle.dumps(source)) < 200_000  # no episodes


def test_the_source_of_a_batch_is_not_pickled(tmp_path):
    folder = fake.write_dataset(tmp_path, lengths=(3, 5))
    source = open_source(fake.data_config(folder, source="stream"))
    with pytest.raises(TypeError, match="pickle the one that `open_source` returned"):
        pickle.dumps(source.with_windows(source.indexes))
    with pytest.raises(TypeError, match="window cannot be pickled"):
        pickle.dumps(source.indexes[0])
