"""Damaged shards are found while indexing, counted, and skipped only when told so."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests import fake
from vla_jax.data import build as build_module
from vla_jax.data.tfrecord import CorruptRecord
from vla_jax.data.write import RLDSWriter, Tensor


def _flip(path: Path, position: int):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def _shard(folder: Path, number: int = 0) -> Path:
    return folder / f"fake-train.tfrecord-{number:05d}-of-00002"


def test_a_flipped_byte_is_found_and_can_be_skipped(tmp_path, capsys):
    folder = fake.write_dataset(tmp_path)
    _flip(_shard(folder), 12 + 1000)
    with pytest.raises(
        CorruptRecord, match=r"train.*00000-of-00002 at byte 0"
    ) as error:
        fake.open_index(folder)
    assert error.value.offset == 0
    index = fake.open_index(folder, skip_corrupt=True)
    assert index.counts["skipped"] == 1
    assert index.num_episode_steps.tolist() == [5, 4, 2]
    np.testing.assert_allclose(index.action[0, 0], fake.action(1, 0)[0])
    assert "Left out 1 corrupt episodes" in capsys.readouterr().out
    fake.open_index(folder)
    assert "leaves out 1 corrupt episodes" in capsys.readouterr().out
    assert "00000-of-00002 at byte 0: the checksum" in index.corrupt[0]


def test_a_truncated_shard_is_found_and_counted(tmp_path):
    folder = fake.write_dataset(tmp_path)
    shard = _shard(folder)
    whole = shard.read_bytes()
    second = fake.open_index(folder).record[1, 0] - 12
    for size in (second + 100, second):  # within the record, and exactly before it
        shard.write_bytes(whole[:size])
        with pytest.raises(CorruptRecord, match=f"00000-of-00002 at byte {second}"):
            fake.open_index(folder)
        index = fake.open_index(folder, skip_corrupt=True)
        assert index.num_episode_steps.tolist() == [3, 4, 2]
        assert index.counts["skipped"] == 1
    shard.write_bytes(b"")
    assert fake.open_index(folder, skip_corrupt=True).counts["skipped"] == 2


def test_a_clean_shard_is_required_after_a_run_that_skipped(tmp_path, monkeypatch):
    folder = fake.write_dataset(tmp_path)
    _flip(_shard(folder), 12 + 1000)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_module, "merge_shards", killed)
    with pytest.raises(KeyboardInterrupt):
        fake.open_index(folder, skip_corrupt=True)
    with pytest.raises(CorruptRecord):
        fake.open_index(folder)


def test_a_record_of_something_else_is_corrupt(tmp_path):
    folder = fake.write_dataset(tmp_path, lengths=(3, 3), shards=2)
    other = fake.write_dataset(tmp_path, name="other", lengths=(2,))
    with RLDSWriter(tmp_path, "text", {"action": Tensor(np.int64)}) as writer:
        writer.write_encoded("train", b"no example")
    shutil.copy(writer.folder / "text-train.tfrecord-00000-of-00001", _shard(folder, 1))
    with pytest.raises(CorruptRecord, match=r"00001-of-00002 at byte 0: not a tf\.t"):
        fake.open_index(folder)
    assert fake.open_index(folder, skip_corrupt=True).counts["skipped"] == 1
    shard = other / "other-train.tfrecord-00000-of-00001"
    shard.write_bytes(shard.read_bytes() * 2)
    with pytest.raises(ValueError, match="more than the 1 episodes"):
        fake.open_index(other)


def test_a_truncated_shard_of_unknown_length_is_counted(tmp_path):
    folder = fake.write_dataset(tmp_path)
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        del split["shardLengths"]
    path.write_text(json.dumps(info))
    assert fake.open_index(folder).num_episode_steps.tolist() == [3, 5, 4, 2]
    _shard(folder, 1).write_bytes(_shard(folder, 1).read_bytes()[:-1])
    with pytest.raises(CorruptRecord, match="00001-of-00002 at byte 0"):
        fake.open_index(folder)
    index = fake.open_index(folder, skip_corrupt=True)
    assert index.counts["skipped"] == 1
    assert index.num_episode_steps.tolist() == [3, 5, 2]
