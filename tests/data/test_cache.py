"""Blocks stay under the limit, the ones used last survive, halves never appear."""

import os

import pytest

from vla_jax.data.cache import BlockCache, default_cache


def test_a_block_comes_back_only_whole(tmp_path):
    cache = BlockCache(tmp_path, 1000)
    cache.put("file", 3, b"abcd")
    assert cache.get("file", 3, 4) == b"abcd"
    assert cache.get("file", 3, 5) is None
    assert cache.get("file", 4, 4) is None


def test_the_least_recently_used_blocks_leave(tmp_path):
    cache = BlockCache(tmp_path, 1000)
    for block in range(9):
        cache.put("file", block, bytes(100))
        os.utime(tmp_path / "file" / str(block), ns=(block, block))
    assert cache.get("file", 0, 100)  # used again
    for block in range(9, 15):
        cache.put("file", block, bytes(100))
    kept = {int(path.name) for path in (tmp_path / "file").iterdir()}
    assert 0 in kept and 14 in kept and not kept & {1, 2, 3}
    assert len(kept) * 100 <= 1100


def test_another_process_starts_by_looking_at_what_is_there(tmp_path):
    for block in range(30):
        BlockCache(tmp_path, 10**6).put("file", block, bytes(100))
    BlockCache(tmp_path, 1000).put("file", 99, bytes(100))
    assert len(list((tmp_path / "file").iterdir())) <= 10


def test_the_environment_names_folder_and_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("VLA_JAX_CACHE_GB", "0.5")
    default_cache.cache_clear()
    assert default_cache().folder == tmp_path
    assert default_cache().limit == 500_000_000
    monkeypatch.setenv("VLA_JAX_CACHE_GB", "much")
    default_cache.cache_clear()
    with pytest.raises(ValueError, match="VLA_JAX_CACHE_GB is 'much'"):
        default_cache()
    default_cache.cache_clear()
