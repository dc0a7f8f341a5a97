"""Dropout drops the share it is told, scales the rest, and draws anew for every key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.dropout import Dropout, random_bits_16


def drop(rate, x, key=0, **call):
    rngs = {"dropout": jax.random.key(key)}
    return Dropout(rate).apply({}, x, rngs=rngs, **call)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_and_the_mean_are_right(rate):
    x = jnp.ones((64, 4, 101))
    y = np.asarray(drop(rate, x))
    assert abs((y == 0).mean() - rate) < 0.01
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-3)


def test_keys_and_places_differ_and_a_key_repeats():
    x = jnp.ones((200,))
    first, again, other = drop(0.5, x), drop(0.5, x), drop(0.5, x, key=1)
    np.testing.assert_array_equal(first, again)
    assert 50 < int((first != other).sum()) < 150
    even, odd = first[::2], first[1::2]  # halves of the same 32 bits
    assert 25 < int((even != odd).sum()) < 75


def test_nothing_is_dropped_when_it_is_off():
    x = jnp.arange(5.0)
    for y in (drop(0.5, x, deterministic=True), drop(0.0, x)):
        np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(drop(1.0, x), 0 * x)
    assert drop(0.5, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_bits_are_uniform_for_odd_sizes_too():
    bits = np.asarray(random_bits_16(jax.random.key(0), (50, 33)))
    assert bits.shape == (50, 33) and bits.dtype == np.uint16
    assert abs(bits.mean() / 2**16 - 0.5) < 0.03
    assert random_bits_16(jax.random.key(0), ()).shape == ()
