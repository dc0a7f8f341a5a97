"""Perceiver resampler: a few learned latents that read many patches.

Flamingo (Alayrac et al., 2022); GR-1 (Wu et al., 2023) keeps nine tokens of the 196
patches of an image with it.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vla_jax.models.attention import attend
from vla_jax.models.image import Levels, pick_level
from vla_jax.types import Tokens


class PerceiverResampler(nn.Module):
    """Latents that attend to the patches and to themselves, then a perceptron each.

    Attributes:
        num_latents: tokens that come out.
        num_layers: depth.
        num_heads: attention heads.
        head_dim: size of a head; need not divide the width.
        dtype: compute precision of the matrix products.
        attention_kernel: one of `vla_jax.models.attention.IMPLEMENTATIONS`.
    """

    num_latents: int = 9
    num_layers: int = 3
    num_heads: int = 4
    head_dim: int = 128
    dtype: str = "float32"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(self, x: Float[Array, "n m d"]) -> Float[Array, "n _r d"]:
        n, _, width = x.shape
        normal = nn.initializers.normal(1.0)
        x = x + self.param("position", normal, (width,))[None, None]
        latent = self.param("latent", normal, (self.num_latents, width))
        latent = jnp.broadcast_to(latent[None], (n, self.num_latents, width))

        def norm(x, name):
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)(x)

        def dense(features, name, axis=-1):
            return nn.DenseGeneral(
                features, axis, use_bias=False, dtype=self.dtype, name=name
            )

        shape = (self.num_heads, self.head_dim)
        for index in range(self.num_layers):
            at = f"layer_{index}"
            query = norm(latent, f"{at}_latent_norm")
            memory = jnp.concatenate([norm(x, f"{at}_input_norm"), query], 1)
            q = dense(shape, f"{at}_q")(query)
            k, v = dense(shape, f"{at}_k")(memory), dense(shape, f"{at}_v")(memory)
            everything = jnp.ones((1, 1, memory.shape[1]), bool)
            y = attend(q, k, v, everything, implementation=self.attention_kernel)
            latent = latent + dense(width, f"{at}_out", (-2, -1))(y)
            y = norm(latent, f"{at}_mlp_norm")
            y = nn.gelu(dense(4 * width, f"{at}_mlp_in")(y), approximate=False)
            latent = latent + dense(width, f"{at}_mlp_out")(y)
        return norm(latent, "norm").astype(jnp.float32)


class ResampledTokens(nn.Module):
    """Resampled patches of a picture, and last the token of the whole picture.

    Attributes:
        resampler: `[n m d] -> [n r d]`.
        level: feature level of the patches.
        whole: level of one cell, of the whole picture.
    """

    resampler: nn.Module
    level: str = "patches"
    whole: str = "cls"

    def __call__(self, levels: Levels, mask: Bool[Array, "b t"]) -> Tokens:
        """Tokens `[b t r+1 d]`; all of a frame are masked where its image is missing.

        Raises:
            ValueError: an unknown level, or a `whole` of more than one cell.
        """
        x, whole = pick_level(levels, self.level), pick_level(levels, self.whole)
        b, t, _, _, width = x.shape
        if whole.shape != (b, t, 1, 1, width):
            raise ValueError(
                f"Level {self.whole!r} has shape {whole.shape}; expected one cell of "
                f"{width} features, like those of {self.level!r}."
            )
        x = self.resampler(x.reshape(b * t, -1, width)).reshape(b, t, -1, width)
        x = jnp.concatenate([x, whole[:, :, 0]], 2)  # [b t r+1 d]
        return Tokens(x, jnp.broadcast_to(mask[..., None], x.shape[:3]))
