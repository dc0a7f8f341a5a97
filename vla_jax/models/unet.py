"""A 1-D U-Net over the chunk as in Diffusion Policy (Chi et al., 2023).

Convolutions along the chunk, halved and doubled in length between levels; time and
observation scale and shift the channels of every block (FiLM, Perez et al., 2018).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.types import Context


def mish(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """x tanh(softplus(x)) (Misra, 2019)."""
    return x * jnp.tanh(jax.nn.softplus(x))


class ConvBlock(nn.Module):
    """Convolution, group normalization, mish."""

    channels: int
    kernel: int
    num_groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c d"]) -> Float[Array, "b c _d"]:
        x = nn.Conv(self.channels, (self.kernel,), name="conv")(x)
        x = nn.GroupNorm(num_groups=self.num_groups, name="norm")(x)
        return mish(x)


class ResidualBlock(nn.Module):
    """Two convolutions around a FiLM layer, with a skip."""

    channels: int
    kernel: int
    num_groups: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b c d"], condition: Float[Array, "b e"]
    ) -> Float[Array, "b c _d"]:
        film = nn.Dense(2 * self.channels, name="film")(mish(condition))[:, None]
        scale, bias = jnp.split(film, 2, -1)  # [b 1 d]
        y = ConvBlock(self.channels, self.kernel, self.num_groups, name="first")(x)
        y = scale * y + bias
        y = ConvBlock(self.channels, self.kernel, self.num_groups, name="second")(y)
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1,), name="skip")(x)
        return x + y


class UNet(nn.Module):
    """Denoises a chunk whose length halves `len(channels) - 1` times.

    Attributes:
        time: embedding of the time, a module `time [b] -> [b d]`.
        channels: of each level.
        kernel: length of the convolutions.
        num_groups: of the normalization.
        zero_init: whether the untrained output is exactly zero.
    """

    time: nn.Module
    channels: tuple[int, ...] = (256, 512, 1024)
    kernel: int = 5
    num_groups: int = 8
    zero_init: bool = False

    def prepare(self, context: Context) -> Float[Array, "b e"]:
        """The readouts, one after the other."""
        return context.readout.reshape(context.readout.shape[0], -1)

    @nn.compact
    def __call__(
        self,
        noisy: Float[Array, "b c a"],
        time: Float[Array, " b"],
        prepared: Float[Array, "b e"],
        *,
        train: bool,
    ) -> Float[Array, "b c a"]:
        del train
        factor = 2 ** (len(self.channels) - 1)
        if noisy.shape[1] % factor:
            raise ValueError(
                f"A U-Net of {len(self.channels)} levels needs a chunk that divides by "
                f"{factor}, not {noisy.shape[1]}."
            )
        embedded = self.time(time)
        t = mish(nn.Dense(4 * embedded.shape[-1], name="time_in")(embedded))
        t = nn.Dense(embedded.shape[-1], name="time_out")(t)
        condition = jnp.concatenate([t, prepared], -1)

        def block(x, channels, name):
            module = ResidualBlock(channels, self.kernel, self.num_groups, name=name)
            return module(x, condition)

        x, skips = noisy, []
        for level, channels in enumerate(self.channels):
            if level:
                skips.append(x)
                size = x.shape[-1]
                down = nn.Conv(size, (3,), (2,), padding=1, name=f"down_{level}")
                x = down(x)
            x = block(x, channels, f"down_{level}_first")
            x = block(x, channels, f"down_{level}_second")
        bottom = x
        x = block(x, self.channels[-1], "middle_first")
        x = block(x, self.channels[-1], "middle_second")
        for level in range(len(self.channels) - 1, 0, -1):
            channels = self.channels[level - 1]
            skip = bottom if level == len(self.channels) - 1 else skips[level]
            x = jnp.concatenate([x, skip], -1)
            x = block(x, channels, f"up_{level}_first")
            x = block(x, channels, f"up_{level}_second")
            x = nn.ConvTranspose(channels, (4,), (2,), name=f"up_{level}")(x)
        x = ConvBlock(self.channels[0], self.kernel, self.num_groups, name="final")(x)
        init = (
            nn.initializers.zeros if self.zero_init else nn.linear.default_kernel_init
        )
        return nn.Conv(noisy.shape[-1], (1,), kernel_init=init, name="out")(x)
