"""Mapped arrays are the saved ones, need no open file, and live while they are used."""

import gc
import os

import numpy as np
import pytest

from vla_jax.data.mapped import map_array

ARRAYS = (
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.array([-1, 5], np.int8),
    np.array([[True, False]]),
    np.zeros((3, 0), np.float32),
    np.array(7, np.int64),
)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype))
def test_what_was_saved_is_mapped(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    mapped = map_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(mapped, array, strict=True)


def test_a_mapping_has_no_file_open_and_outlives_its_name(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(100_000))
    files = len(os.listdir("/proc/self/fd"))
    kept = map_array(path)[90_000:]
    assert len(os.listdir("/proc/self/fd")) == files
    path.unlink()
    gc.collect()
    np.testing.assert_array_equal(kept, np.arange(90_000, 100_000))
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def mapped_files():
    with open("/proc/self/maps") as file:
        return file.read()


def test_memory_is_given_back_with_the_last_array(tmp_path):
    path = tmp_path / "given_back.npy"
    np.save(path, np.arange(1000))
    view = map_array(path)[3:]
    assert "given_back.npy" in mapped_files()
    del view
    gc.collect()
    assert "given_back.npy" not in mapped_files()


def test_what_is_cut_short_or_no_array_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(1000))
    os.truncate(path, 4000)
    with pytest.raises(ValueError, match="cut short"):
        map_array(path)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="magic"):
        map_array(path)
    with pytest.raises(FileNotFoundError):
        map_array(tmp_path / "b.npy")
