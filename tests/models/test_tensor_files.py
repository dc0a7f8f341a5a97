"""Weight files: what PyTorch and safetensors write, and pickles that do more."""

import collections
import json
import struct

import ml_dtypes
import numpy as np
import pytest

from vla_jax.models.tensor_files import read_tensors


@pytest.fixture(scope="module")
def torch():
    import torch

    return torch


def tensors(torch):
    base = torch.arange(12, dtype=torch.float32)
    return collections.OrderedDict(
        plain=base.reshape(3, 4),
        turned=base.reshape(3, 4).T,  # shares the storage, other strides
        part=base[5:7],
        half=torch.tensor([1.5, -2.0], dtype=torch.float16),
        brain=torch.tensor([1.0, 3.0], dtype=torch.bfloat16),
        count=torch.tensor(7),
        empty=torch.zeros(0, 3),
        weight=torch.nn.Parameter(torch.ones(2)),
    )


EXPECTED = {
    "plain": np.arange(12, dtype=np.float32).reshape(3, 4),
    "turned": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "part": np.array([5, 6], np.float32),
    "half": np.array([1.5, -2], np.float16),
    "brain": np.array([1, 3], ml_dtypes.bfloat16),
    "count": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
    "weight": np.ones(2, np.float32),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_state_dict_is_read_without_torch(torch, tmp_path, zipped):
    path = tmp_path / "a.pth"
    torch.save(tensors(torch), path, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path)
    assert found.keys() == EXPECTED.keys()
    for name, value in EXPECTED.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_safetensors_are_read(tmp_path):
    from safetensors.numpy import save_file

    expected = {k: np.ascontiguousarray(v) for k, v in EXPECTED.items()}
    save_file(expected, tmp_path / "a.safetensors", {"format": "pt"})
    found = read_tensors(tmp_path / "a.safetensors")
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


class Harmful:
    """A pickle of this object runs a command when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    torch, tmp_path, zipped
):
    content = {"a": torch.ones(1), "b": Harmful(tmp_path / "ran")}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.system"):
        read_tensors(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused_with_what_to_save_instead(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"state_dict\(\) alone"):
        read_tensors(tmp_path / "a.pth")


def test_what_is_no_tensor_is_named_and_an_entry_can_be_chosen(torch, tmp_path):
    content = {"epoch": 3, "model": {"w": torch.ones(2)}}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"'epoch' .* int .* entries \['model'\]"):
        read_tensors(tmp_path / "a.pth")
    assert list(read_tensors(tmp_path / "a.pth", "model")) == ["w"]
    with pytest.raises(ValueError, match=r"no entry 'state_dict'; it has \['epoch'"):
        read_tensors(tmp_path / "a.pth", "state_dict")


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(torch, tmp_path):
    import zipfile

    torch.save({"w": torch.ones(1000)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as whole,
        zipfile.ZipFile(tmp_path / "b.pth", "w") as cut,
    ):
        for name in whole.namelist():
            data = whole.read(name)
            cut.writestr(name, data[:40] if "/data/" in name else data)
    with pytest.raises(ValueError):
        read_tensors(tmp_path / "b.pth")


@pytest.mark.parametrize(
    "content", [b"", b"\x05", b"hello, world", struct.pack("<Q", 9) + b"{"]
)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_files_are_value_errors(tmp_path, content, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        read_tensors(path)


def test_a_safetensors_file_that_is_cut_short_names_the_tensor(tmp_path):
    header = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(12))
    with pytest.raises(ValueError, match=r"damaged: tensor 'w' has 12 bytes"):
        read_tensors(path)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no weight file .*gone\.pth"):
        read_tensors(tmp_path / "gone.pth")
