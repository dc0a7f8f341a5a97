import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vla_jax.serving.tensors import read_tensors, write_tensors

TENSORS = {
    "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "empty": np.zeros((0, 4), np.int64),
    "flag": np.array(True),
    "half": np.array([1.5, -2], ml_dtypes.bfloat16),
    "transposed": np.arange(6, dtype=np.uint8).reshape(2, 3).T,
}


def assert_same(found):
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_what_is_written_is_read_and_the_safetensors_package_agrees(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"format": "vla_jax"})
    assert_same(read_tensors(path))
    assert_same(safetensors.numpy.load_file(path))
    contiguous = {k: np.ascontiguousarray(v) for k, v in TENSORS.items()}
    contiguous["flag"] = TENSORS["flag"]
    safetensors.numpy.save_file(contiguous, path)
    assert_same(read_tensors(path))


def test_a_type_that_the_format_lacks_is_named(tmp_path):
    with pytest.raises(ValueError, match="Array 'c' has type complex128"):
        write_tensors(tmp_path / "x", {"c": np.zeros(1, complex)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short or no safetensors file"),
        (b"\xff" * 20, "cut short or no safetensors file"),
        ((2).to_bytes(8, "little") + b"[]", "damaged header"),
        ((3).to_bytes(8, "little") + b"{]}", "is damaged"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, data, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_tensors(path)


def test_offsets_and_shapes_that_lie_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    for entry in (
        '{"dtype":"F32","shape":[2],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[4,8]}',
        '{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}',
        '{"dtype":"F99","shape":[1],"data_offsets":[0,4]}',
    ):
        header = f'{{"a":{entry}}}'.encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
        with pytest.raises(ValueError, match="damaged"):
            read_tensors(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_tensors(tmp_path / "none")
