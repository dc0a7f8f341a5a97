import jax
import jax.numpy as jnp
import numpy as np

from vla_jax.models.language import TextTransformer
from vla_jax.types import Task

TASK = Task(tokens=jnp.array([[3, 1, 2]]), token_mask=jnp.array([[True, True, False]]))


def test_the_layers_compute_in_the_precision_that_is_asked_for():
    full, half = (
        TextTransformer(vocab_size=4, width=8, num_heads=2, dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    variables = half.init(jax.random.key(0), TASK, train=False)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {"float32"}
    expected = full.apply(variables, TASK, train=False).values
    found = half.apply(variables, TASK, train=False).values
    assert found.dtype == expected.dtype == jnp.float32
    assert 0 < np.abs(found - expected).max() < 0.1
    # Eight bits of mantissa: the low half of every float32 is zero.
    assert not np.any(np.asarray(found).view(np.uint32) & 0xFFFF)
