"""A denoiser of residual perceptrons over the flattened chunk, as in Octo (2024)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.types import Context


class MLPDenoiser(nn.Module):
    """Cheap: what the transformer made of the inputs enters as one vector.

    Attributes:
        time: embedding of the time, a module `time [b] -> [b d]`.
        width: size of the residual stream.
        hidden: hidden units of each block.
        num_blocks: residual blocks.
        dropout: rate inside the blocks.
        zero_init: whether the untrained output is exactly zero.
    """

    time: nn.Module
    width: int = 256
    hidden: int = 1024
    num_blocks: int = 3
    dropout: float = 0.0
    zero_init: bool = False

    def prepare(self, context: Context) -> Float[Array, "b d"]:
        """The mean of the readouts."""
        return jnp.mean(context.readout, axis=1)

    @nn.compact
    def __call__(
        self,
        noisy: Float[Array, "b c a"],
        time: Float[Array, " b"],
        prepared: Float[Array, "b d"],
        *,
        train: bool,
    ) -> Float[Array, "b c a"]:
        embedded = self.time(time)
        t = nn.swish(nn.Dense(2 * embedded.shape[-1], name="time_in")(embedded))
        t = nn.Dense(embedded.shape[-1], name="time_out")(t)
        flat = noisy.reshape(noisy.shape[0], -1)  # [b c*a]
        x = nn.Dense(self.width, name="in")(jnp.concatenate([t, prepared, flat], -1))
        drop = nn.Dropout(self.dropout, deterministic=not train)
        for index in range(self.num_blocks):
            y = nn.LayerNorm(name=f"norm_{index}")(drop(x))
            y = nn.swish(nn.Dense(self.hidden, name=f"hidden_{index}")(y))
            x = x + nn.Dense(self.width, name=f"out_{index}")(y)
        init = (
            nn.initializers.zeros if self.zero_init else nn.linear.default_kernel_init
        )
        x = nn.Dense(flat.shape[-1], kernel_init=init, name="out")(nn.swish(x))
        return x.reshape(noisy.shape)  # [b c a]
