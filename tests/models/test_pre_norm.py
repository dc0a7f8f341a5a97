"""Layers of published models: activations, and what the backward pass keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.pre_norm import ACTIVATIONS, PreNormLayer, PreNormStack

X = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 4)), jnp.float32)
MASK = jnp.ones((1, 1, 3), bool)


def test_activations_at_one():
    found = {
        name: round(float(f(jnp.array(1.0))), 4) for name, f in ACTIVATIONS.items()
    }
    assert found == dict(gelu=0.8413, gelu_tanh=0.8412, quick_gelu=0.8458, relu=1.0)


def test_rematerialized_layers_have_the_same_gradient():
    plain = PreNormStack(2, 2, 8)
    variables = plain.init(jax.random.key(0), X, MASK, train=True)

    def gradient(stack):
        def total(variables):
            return jnp.sum(stack.apply(variables, X, MASK, train=True)[-1] ** 2)

        return jax.grad(total)

    program = str(jax.make_jaxpr(gradient(plain.clone(remat="full")))(variables))
    assert "remat" in program or "checkpoint" in program
    wanted, found = (gradient(s)(variables) for s in (plain, plain.clone(remat="full")))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), wanted, found
    )


@pytest.mark.parametrize("rows", [1, 3])
def test_attention_kernels_agree_whether_readers_share_a_mask_or_not(rows):
    mask = jnp.ones((1, rows, 3), bool).at[:, :, 2].set(False)
    plain = PreNormStack(1, 2, 8)
    variables = plain.init(jax.random.key(0), X, mask, train=False)
    wanted, found = (
        stack.apply(variables, X, mask, train=False)[-1]
        for stack in (plain, plain.clone(attention_kernel="xla"))
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_unknown_choices_are_named():
    with pytest.raises(ValueError, match="Unknown remat 'ful'"):
        PreNormStack(1, 2, 8, remat="ful").init(jax.random.key(0), X, MASK, train=True)
    with pytest.raises(ValueError, match="Unknown activation 'gelo'"):
        PreNormLayer(2, 8, "gelo").init(jax.random.key(0), X, MASK, train=True)
