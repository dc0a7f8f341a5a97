"""The table of placements, on meshes that no device has to exist for."""

import pytest
from jax.sharding import PartitionSpec as P

from vla_jax.train.rules import default_spec

LAYER = "trunk/transformer/layer_0"


def spec(path, shape, *, fsdp=4, tensor=2, min_size=1):
    mesh = dict(replica=1, data=1, fsdp=fsdp, tensor=tensor)
    return default_spec(mesh, path, shape, min_size=min_size)


@pytest.mark.parametrize(
    "path, shape, expected",
    [
        (f"{LAYER}/attention/q/kernel", (16, 2, 8), P("fsdp", "tensor")),
        (f"{LAYER}/attention/q/bias", (2, 8), P("tensor", "fsdp")),
        (f"{LAYER}/attention/out/kernel", (2, 8, 16), P("tensor", None, "fsdp")),
        (f"{LAYER}/cross_attention/out/kernel", (2, 8, 16), P("tensor", None, "fsdp")),
        (f"{LAYER}/mlp_in/kernel", (16, 64), P("fsdp", "tensor")),
        (f"{LAYER}/mlp_in/bias", (64,), P("tensor")),
        (f"{LAYER}/mlp_out/kernel", (64, 16), P("tensor", "fsdp")),
        (f"{LAYER}/mlp_norm/scale", (16,), P("fsdp")),
        ("text/embed/embedding", (2048, 16), P(("fsdp", "tensor"))),
        # Rows that only the first axis of the mesh divides, then none.
        ("text/embed/embedding", (12, 16), P("fsdp")),
        ("text/embed/embedding", (7, 16), P(None, "fsdp")),
        ("head/hidden/kernel", (16, 32), P(None, "fsdp")),
        # A stack of scanned layers has its number in front.
        ("trunk/layers/attention/q/kernel", (3, 16, 2, 8), P(None, "fsdp", "tensor")),
        ("trunk/layers/mlp_out/kernel", (3, 64, 16), P(None, "tensor", "fsdp")),
        # Adapters are no kernels of their own.
        (f"lora/{LAYER}/mlp_in/kernel/a", (16, 2), P("fsdp")),
    ],
)
def test_a_parameter_lies_as_the_table_says(path, shape, expected):
    assert spec(path, shape) == expected


def test_an_axis_that_does_not_divide_stays_whole():
    assert spec(f"{LAYER}/attention/q/kernel", (16, 3, 8)) == P("fsdp")
    assert spec(f"{LAYER}/mlp_in/kernel", (6, 64)) == P(None, "tensor")
    assert spec(f"{LAYER}/mlp_in/kernel", (3, 5)) == P()


def test_a_small_array_is_split_over_tensor_alone():
    assert spec(f"{LAYER}/mlp_in/kernel", (4, 8), min_size=33) == P(None, "tensor")
    assert spec(f"{LAYER}/mlp_in/kernel", (4, 8), min_size=32) == P("fsdp", "tensor")


def test_one_device_splits_nothing():
    assert spec("text/embed/embedding", (8, 8), fsdp=1, tensor=1) == P()
