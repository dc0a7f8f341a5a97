import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_jax.models.transformer import Attention, Block, Transformer, blockwise_mask


def test_blockwise_mask_of_two_frames_and_a_readout():
    frames = ("task", "camera")
    blocks = [
        Block("task", 2, ("task",)),
        Block("camera", 1, frames, frame=0),
        Block("camera", 2, frames, frame=1),
        Block("readout", 1, (*frames, "readout"), frame=1),
    ]
    np.testing.assert_array_equal(
        blockwise_mask(blocks),
        [
            [1, 1, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 1, 0],
            [1, 1, 1, 1, 1, 0],
            [1, 1, 1, 1, 1, 1],
        ],
    )


def test_causal_block_reads_backwards_only():
    blocks = [Block("image", 1, ("image",)), Block("text", 3, ("image", "text"))]
    blocks[1] = Block("text", 3, ("image", "text"), causal=True)
    np.testing.assert_array_equal(
        blockwise_mask(blocks),
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]],
    )


def test_frame_tokens_read_all_of_their_own_frame_and_nothing_later():
    blocks = [Block("a", 1, ("a", "b"), frame=f) for f in range(2)]
    blocks.insert(1, Block("b", 1, ("b",), frame=0))
    np.testing.assert_array_equal(
        blockwise_mask(blocks), [[1, 1, 0], [0, 1, 0], [1, 1, 1]]
    )


def test_reading_an_absent_group_names_it():
    with pytest.raises(ValueError, match=r"'a' reads \['wrist'\].*\['a'\]"):
        blockwise_mask([Block("a", 1, ("a", "wrist"))])


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3)), min_size=1))
def test_nobody_reads_a_later_frame(runs):
    blocks = [Block("x", n, ("x",), frame=frame) for n, frame in runs]
    mask = blockwise_mask(blocks)
    frame = np.repeat([f for _, f in runs], [n for n, _ in runs])
    np.testing.assert_array_equal(mask, frame[None, :] <= frame[:, None])


def test_token_that_may_not_be_read_cannot_change_the_reader():
    model = Transformer(num_layers=2, num_heads=2, mlp_width=8)
    x = jax.random.normal(jax.random.key(0), (1, 3, 4))
    mask = jnp.array([[[1, 1, 0], [1, 1, 0], [1, 1, 1]]], bool)
    params = model.init(jax.random.key(1), x, mask, train=False)
    before = model.apply(params, x, mask, train=False)
    after = model.apply(params, x.at[:, 2].set(9.0), mask, train=False)
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert np.abs(before[:, 2] - after[:, 2]).max() > 0.1


def test_reader_of_nothing_gets_only_the_bias():
    model = Attention(num_heads=1)
    x = jax.random.normal(jax.random.key(0), (1, 2, 4))
    mask = jnp.array([[[True, True], [False, False]]])
    params = model.init(jax.random.key(1), x, x, mask)
    bias = jnp.full(4, 0.5)
    params["params"]["out"]["bias"] = bias
    np.testing.assert_allclose(model.apply(params, x, x, mask)[0, 1], bias)


def test_attention_over_equal_keys_is_the_mean_of_the_values():
    model = Attention(num_heads=2)
    query = jax.random.normal(jax.random.key(0), (1, 1, 4))
    memory = jnp.ones((1, 3, 4))
    mask = jnp.ones((1, 1, 3), bool)
    params = model.init(jax.random.key(1), query, memory, mask)
    one = model.apply(params, query, memory[:, :1], mask[:, :, :1])
    np.testing.assert_allclose(model.apply(params, query, memory, mask), one, atol=1e-6)
