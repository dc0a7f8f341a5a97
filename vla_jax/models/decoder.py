"""From the context to one feature vector per action of the chunk."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.models.transformer import Attention
from vla_jax.types import Context


class QueryDecoder(nn.Module):
    """Learned queries, one per action, that read each other and the trunk's tokens.

    Attributes:
        chunk: number of queries.
        width: size of a query.
        num_layers: pre-norm layers of self-attention, cross-attention and perceptron.
        num_heads: attention heads.
        mlp_width: hidden units of each layer's perceptron.
        dropout: rate on residual branches and hidden units.
        dtype: compute precision of the layers; parameters stay float32.
    """

    chunk: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, context: Context, *, train: bool) -> Float[Array, "b c d"]:
        tokens = context.tokens
        query = self.param(
            "query", nn.initializers.normal(0.02), (self.chunk, self.width)
        )
        batch = tokens.values.shape[0]
        x = jnp.broadcast_to(query[None], (batch, self.chunk, self.width))
        own = jnp.ones((1, 1, self.chunk), bool)
        real = tokens.mask[:, None]  # [b 1 n]
        drop = nn.Dropout(self.dropout, deterministic=not train)

        def norm(x, name):
            return nn.LayerNorm(dtype=self.dtype, name=name)(x)

        def attention(name):
            return Attention(self.num_heads, self.dtype, name=name)

        for index in range(self.num_layers):
            at = f"layer_{index}"
            y = norm(x, f"{at}_self_norm")
            x = x + drop(attention(f"{at}_self")(y, y, own))
            y = norm(x, f"{at}_cross_norm")
            x = x + drop(attention(f"{at}_cross")(y, tokens.values, real))
            y = nn.Dense(self.mlp_width, dtype=self.dtype, name=f"{at}_mlp_in")(
                norm(x, f"{at}_mlp_norm")
            )
            y = drop(nn.gelu(y))
            y = nn.Dense(self.width, dtype=self.dtype, name=f"{at}_mlp_out")(y)
            x = x + drop(y)
        return norm(x, "norm").astype(jnp.float32)


class ReadoutDecoder(nn.Module):
    """A perceptron on each readout, for a trunk with one readout per action (GR-1).

    Attributes:
        chunk: number of actions, as many as the trunk has readouts.
        widths: hidden units of its layers.
    """

    chunk: int
    widths: tuple[int, ...] = (192, 192)

    @nn.compact
    def __call__(self, context: Context, *, train: bool) -> Float[Array, "b c d"]:
        del train
        if context.readout.shape[1] != self.chunk:
            raise ValueError(
                f"The trunk has {context.readout.shape[1]} readouts for a chunk of "
                f"{self.chunk}; set model.trunk.num_readouts to the chunk."
            )
        x = context.readout
        for index, width in enumerate(self.widths):
            x = nn.relu(nn.Dense(width, name=f"hidden_{index}")(x))
        return x
