"""Remote files are read in few requests and survive a bad server, byte for byte."""

import sys

import jax
import numpy as np
import pytest

from tests import fake, fake_server
from vla_jax.data import remote
from vla_jax.data.cache import BlockCache, default_cache
from vla_jax.data.loader import train_batches
from vla_jax.data.remote import BLOCK, Patience, RemoteFile, RemotePath, coalesce
from vla_jax.data.rlds import open_rlds
from vla_jax.data.source import open_source

PATIENCE = Patience(attempts=3, pause=0.01, timeout=0.5)
SIZE = 20 * BLOCK + 77


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).bytes(SIZE)


@pytest.fixture
def server(tmp_path, data):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file").write_bytes(data)
    with fake_server.serve(tmp_path / "served") as server:
        yield server


def open_file(server, tmp_path, limit=10**9):
    cache = BlockCache(tmp_path / "cache", limit)
    return RemoteFile(fake_server.url(server, "file"), cache=cache, patience=PATIENCE)


def ranges(server):
    return [r[2:] for r in server.requests if r[0] == "GET" and r[3] - r[2] < SIZE]


def test_any_span_is_read_exactly(server, tmp_path, data):
    file = open_file(server, tmp_path)
    assert file.size == SIZE
    spans = [(0, 1), (BLOCK - 3, 7), (5 * BLOCK, 2 * BLOCK), (SIZE - 9, 9), (4, 0)]
    assert file.read_many(spans) == [data[s : s + n] for s, n in spans]
    assert file.read(SIZE - 5, 100) == data[-5:]
    assert file.read_whole() == data


def test_neighbours_are_one_request_and_the_second_time_none(server, tmp_path):
    file = open_file(server, tmp_path)
    spans = [(10 + i * BLOCK // 4, 100) for i in range(12)]
    file.read_many([*spans, (9 * BLOCK, 5)])
    assert sorted(ranges(server)) == [(0, 3 * BLOCK), (9 * BLOCK, 10 * BLOCK)]
    file.read_many(spans)
    open_file(server, tmp_path).read_many(spans)  # another process
    assert len(ranges(server)) == 2


def test_runs_join_over_one_block_and_end_somewhere():
    assert coalesce({5, 1, 2, 4, 9}) == [range(1, 6), range(9, 10)]
    runs = coalesce(range(100))
    assert [len(run) for run in runs] == [32, 32, 32, 4]
    assert coalesce([]) == []


def test_a_cache_smaller_than_what_is_read_changes_nothing(server, tmp_path, data):
    file = open_file(server, tmp_path, limit=2 * BLOCK)
    for _ in range(2):
        assert file.read(0, SIZE) == data
    kept = sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert kept <= 2.2 * BLOCK


@pytest.mark.parametrize("fault", ["500", "slow", "cut", "whole"])
def test_a_fault_is_tried_again(server, tmp_path, data, fault):
    file = open_file(server, tmp_path)
    server.faults[:] = [fault, fault]
    assert file.read(3 * BLOCK + 5, 1000) == data[3 * BLOCK + 5 :][:1000]
    assert len(server.requests) >= 4 and not server.faults


@pytest.mark.parametrize("fault", ["500", "slow", "cut", "whole"])
def test_a_fault_that_stays_is_a_clear_error(server, tmp_path, fault):
    file = open_file(server, tmp_path)
    server.faults[:] = [fault] * 20
    message = f"bytes {BLOCK} to {2 * BLOCK} of http.*file could not be read in 3 att"
    with pytest.raises(ConnectionError, match=message):
        file.read(BLOCK + 5, 1000)


def test_what_is_not_there_is_not_tried_again(server, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent cannot be read"):
        RemoteFile(fake_server.url(server, "absent"), patience=PATIENCE)
    file = open_file(server, tmp_path)
    server.faults[:] = ["404", "500"]
    with pytest.raises(OSError, match="file cannot be read"):
        file.read(0, 10)
    assert server.faults == ["500"]


def test_a_server_that_is_gone_is_a_clear_error(tmp_path):
    with fake_server.serve(tmp_path) as server:
        address = fake_server.url(server, "file")
    with pytest.raises(ConnectionError, match=r"its size of .* in 3 attempts"):
        RemoteFile(address, patience=PATIENCE)


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"vla_jax\[remote\]"):
        RemotePath("http://127.0.0.1:1/x").exists()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_JAX_CACHE", str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(remote.Patience.__new__, "__defaults__", (6, 0.01, 0.5))
    default_cache.cache_clear()
    yield
    default_cache.cache_clear()


@pytest.mark.parametrize("lists", [True, False])
def test_a_remote_data_set_opens_like_a_local_one(tmp_path, cache, lists):
    folder = fake.write_dataset(tmp_path / "data")
    local = open_rlds(folder)
    with fake_server.serve(tmp_path / "data", lists=lists) as server:
        found = open_rlds(fake_server.url(server, "fake/1.0.0"))
    assert found.features == local.features and found.name == local.name
    shards = [s.path.rpartition("/")[2] for s in found.splits["train"]]
    assert shards == [s.path.rpartition("/")[2] for s in local.splits["train"]]


def test_training_over_a_bad_server_loses_and_doubles_no_sample(tmp_path, cache):
    folder = fake.write_dataset(tmp_path / "data", lengths=(3, 5, 4, 6))
    options = dict(batch_size=4, num_threads=2, prefetch=2)
    local = open_source(fake.data_config(folder, **options))
    with fake_server.serve(tmp_path / "data") as server:
        server.faults[:] = ["500", "", "cut", "slow"]
        address = fake_server.url(server, "fake/1.0.0")
        distant = open_source(fake.data_config(address, **options))
        assert distant.metadata() == local.metadata()
        server.faults[:] = ["", "cut", "500", "slow", "whole"] * 3
        with (
            train_batches(distant, seed=0) as one,
            train_batches(local, seed=0) as two,
        ):
            for _ in range(9):  # two epochs
                a, b = jax.tree.leaves(next(one)), jax.tree.leaves(next(two))
                for x, y in zip(a, b, strict=True):
                    np.testing.assert_array_equal(x, y)
        assert len(server.requests) < 60
