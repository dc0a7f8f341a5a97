"""What a denoiser knows of the time: sines and cosines, fixed or learned."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class SinusoidalTime(nn.Module):
    """Sines and cosines of log-spaced periods.

    The default suits integer timesteps (base 10000, as in transformers); a flow time
    wants periods from 4e-3 to 4, as in pi0.

    Attributes:
        width: size of the embedding, even.
        min_period: the shortest period, in the units of time.
        max_period: the longest.
    """

    width: int
    min_period: float = 2 * np.pi
    max_period: float = 2e4 * np.pi

    def __call__(self, time: Float[Array, " b"]) -> Float[Array, "b d"]:
        """All sines, then all cosines."""
        if self.width % 2:
            raise ValueError(f"The time embedding's width is {self.width}, not even.")
        share = np.linspace(0, 1, self.width // 2)
        period = self.min_period * (self.max_period / self.min_period) ** share
        angle = time[:, None] * (2 * np.pi / period)[None].astype(np.float32)
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class FourierTime(nn.Module):
    """Cosines and sines of learned frequencies, as in Octo (2024).

    Attributes:
        width: size of the embedding, even.
        scale: standard deviation of the initial frequencies, in cycles per timestep.
    """

    width: int = 32
    scale: float = 0.2

    @nn.compact
    def __call__(self, time: Float[Array, " b"]) -> Float[Array, "b d"]:
        """All cosines, then all sines."""
        if self.width % 2:
            raise ValueError(f"The time embedding's width is {self.width}, not even.")
        frequency = self.param(
            "frequency", nn.initializers.normal(self.scale), (self.width // 2,)
        )
        angle = 2 * np.pi * time[:, None] * frequency[None]
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)
