"""Dropout from 16 random bits a number, half of what `flax.linen.Dropout` draws.

Random bits are most of what dropout costs on a CPU, above all on attention weights.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LEVELS = 2**16


class Dropout(nn.Module):
    """Sets numbers to zero at random and scales the others so that the mean stays.

    Attributes:
        rate: share that is dropped, rounded to a multiple of 1/65536.
        deterministic: whether everything is kept.
    """

    rate: float
    deterministic: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "*n"], *, deterministic: bool | None = None
    ) -> Float[Array, "*n"]:
        """Draws from the stream "dropout".

        Args:
            x: any numbers.
            deterministic: instead of the field.
        """
        off = self.deterministic if deterministic is None else deterministic
        dropped = round(self.rate * _LEVELS)
        if off or not dropped:
            return x
        if dropped >= _LEVELS:
            return jnp.zeros_like(x)
        bits = random_bits_16(self.make_rng("dropout"), x.shape)
        factor = jnp.asarray(_LEVELS / (_LEVELS - dropped), x.dtype)
        return jnp.where(bits >= dropped, x * factor, jnp.zeros_like(x))


def random_bits_16(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random uint16 of a shape, two of every uint32 that is drawn.

    `jax.random.bits` would draw a uint32 for each and throw half of it away.
    """
    if not shape:
        return jax.random.bits(rng, dtype=jnp.uint16)
    *leading, last = shape
    pairs = jax.random.bits(rng, (*leading, -(-last // 2)), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(pairs, jnp.uint16)  # [... last/2 2]
    return halves.reshape(*leading, -1)[..., :last]
