import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.heads.oracle import make_context
from vla_jax.models.decoder import QueryDecoder, ReadoutDecoder


def test_queries_read_real_tokens_and_only_those():
    decoder = QueryDecoder(chunk=3, width=4, num_layers=1, num_heads=2, mlp_width=4)
    context = make_context(tokens=3)
    variables = decoder.init(jax.random.key(0), context, train=False)
    decode = jax.jit(lambda context: decoder.apply(variables, context, train=False))

    def changed(token):
        values = context.tokens.values.at[:, token].set(jnp.arange(4.0))
        return decode(context.replace(tokens=context.tokens.replace(values=values)))

    base = decode(context)
    assert base.shape == (1, 3, 4)
    np.testing.assert_array_equal(changed(2), base)  # the last one is masked
    assert np.abs(changed(0) - base).max() > 1e-4
    assert np.abs(base[:, 0] - base[:, 1]).max() > 1e-4


def test_one_readout_per_action_is_asked_for():
    with pytest.raises(
        ValueError, match=r"2 readouts for a chunk of 3; set model.trunk"
    ):
        ReadoutDecoder(chunk=3).init(jax.random.key(0), make_context(), train=False)


def test_each_readout_is_decoded_by_itself():
    decoder = ReadoutDecoder(chunk=2, widths=(4,))
    context = make_context()
    variables = decoder.init(jax.random.key(0), context, train=False)
    readout = context.readout.at[:, 1].set(jnp.array([3.0, -1.0, 2.0, 0.5]))
    base = decoder.apply(variables, context, train=False)
    moved = decoder.apply(variables, context.replace(readout=readout), train=False)
    np.testing.assert_array_equal(moved[:, 0], base[:, 0])
    assert np.abs(moved[:, 1] - base[:, 1]).max() > 1e-4
