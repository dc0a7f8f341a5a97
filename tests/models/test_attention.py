"""The implementations of attention against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.attention import Attention, attend, require_cudnn

RNG = np.random.default_rng(0)
Q, K, V = (
    jnp.asarray(RNG.standard_normal((2, n, 2, 4)), jnp.float32) for n in (3, 5, 5)
)
MASK = np.array(RNG.integers(0, 2, (2, 3, 5)), bool)
MASK[0, 1] = False  # a reader that may read nothing
MASK[1, 2, 0] = True


def output_and_gradient(implementation, dtype="float32", mask=MASK):
    def total(q, k, v):
        out = attend(q, k, v, jnp.asarray(mask), implementation=implementation)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    arrays = (Q.astype(dtype), K.astype(dtype), V.astype(dtype))
    (_, out), gradient = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*arrays)
    return out, *gradient


@pytest.mark.parametrize("mask", [MASK, MASK[1:]], ids=["each", "shared"])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_xla_equals_plain(dtype, tolerance, mask):
    found = output_and_gradient("xla", dtype, mask)
    expected = output_and_gradient("plain", dtype, mask)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype == dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("implementation", ["plain", "xla"])
def test_a_reader_that_may_read_nothing_gets_zeros(implementation):
    out, *gradient = output_and_gradient(implementation)
    assert not np.any(out[0, 1]) and np.all(out[0, 0] != 0)
    assert all(np.all(np.isfinite(x)) for x in gradient)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
def test_cudnn_equals_plain():
    arrays = [jnp.tile(x, (1, 1, 1, 16)).astype("bfloat16") for x in (Q, K, V)]
    found, expected = (
        np.asarray(attend(*arrays, jnp.asarray(MASK), implementation=name), np.float32)
        for name in ("cudnn", "plain")
    )
    np.testing.assert_allclose(found, expected, rtol=3e-2, atol=3e-2)


def test_cudnn_is_refused_without_a_gpu():
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    with pytest.raises(ValueError, match=r"needs an NVIDIA GPU.*computes on 'cpu'"):
        output_and_gradient("cudnn", "bfloat16")


def test_cudnn_is_refused_in_float32(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match=r"not in float32; set model.compute.dtype"):
        require_cudnn("float32")
    require_cudnn("bfloat16")


def test_an_unknown_implementation_lists_the_known_ones():
    model = Attention(num_heads=2, implementation="flash")
    x = jnp.zeros((1, 2, 4))
    with pytest.raises(ValueError, match=r"Unknown attention 'flash'; choose one of"):
        model.init(jax.random.key(0), x, x, jnp.ones((1, 2, 2), bool))
