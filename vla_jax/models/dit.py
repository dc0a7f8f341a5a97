"""A transformer denoiser: action tokens read each other and the trunk's tokens.

The time scales, shifts and gates every sub-layer (adaLN-Zero, Peebles & Xie, 2023).
Keys and values of the trunk's tokens are computed once for all steps of a sampler.
"""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from vla_jax.models.transformer import attend
from vla_jax.types import Context

KeysValues = tuple[Float[Array, "b n h e"], Float[Array, "b n h e"]]


@struct.dataclass
class Memory:
    """What each layer reads of the context, and which of it is real."""

    layers: tuple[KeysValues, ...]
    mask: Bool[Array, "b 1 n"]


class DiTLayer(nn.Module):
    """Self-attention, cross-attention and perceptron, each gated by the time.

    Attributes:
        width, num_heads, mlp_width, dropout, dtype: as in `DiT`.
    """

    width: int
    num_heads: int
    mlp_width: int
    dropout: float
    dtype: str

    def setup(self):
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not a multiple of {self.num_heads} heads."
            )
        shape = (self.num_heads, self.width // self.num_heads)

        def project():
            return nn.DenseGeneral(shape, dtype=self.dtype)

        def merge():
            return nn.DenseGeneral(self.width, axis=(-2, -1), dtype=self.dtype)

        self.modulation = nn.Dense(9 * self.width, kernel_init=nn.initializers.zeros)
        self.self_q, self.self_k, self.self_v = project(), project(), project()
        self.cross_q, self.cross_k, self.cross_v = project(), project(), project()
        self.self_out, self.cross_out = merge(), merge()
        self.mlp_in = nn.Dense(self.mlp_width, dtype=self.dtype)
        self.mlp_out = nn.Dense(self.width, dtype=self.dtype)
        self.norm = nn.LayerNorm(use_bias=False, use_scale=False, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def remember(self, tokens: Float[Array, "b n d"]) -> KeysValues:
        """Keys and values of the trunk's tokens."""
        return self.cross_k(tokens), self.cross_v(tokens)

    def __call__(
        self,
        x: Float[Array, "b c d"],
        time: Float[Array, "b d"],
        memory: KeysValues,
        mask: Bool[Array, "b 1 n"],
        *,
        train: bool,
    ) -> Float[Array, "b c d"]:
        parts = jnp.split(self.modulation(time)[:, None], 9, -1)  # each [b 1 d]
        everything = jnp.ones((1, 1, x.shape[1]), bool)

        def drop(y):
            return self.drop(y, deterministic=not train)

        shift, scale, gate = parts[:3]
        y = self.norm(x) * (1 + scale) + shift
        y = attend(self.self_q(y), self.self_k(y), self.self_v(y), everything)
        x = x + gate * drop(self.self_out(y))
        shift, scale, gate = parts[3:6]
        y = self.norm(x) * (1 + scale) + shift
        y = attend(self.cross_q(y), *memory, mask)
        x = x + gate * drop(self.cross_out(y))
        shift, scale, gate = parts[6:]
        y = self.norm(x) * (1 + scale) + shift
        y = self.mlp_out(drop(nn.gelu(self.mlp_in(y))))
        return x + gate * drop(y)


class DiT(nn.Module):
    """Denoises a chunk of action tokens with the trunk's tokens as memory.

    The untrained output is exactly zero.

    Attributes:
        time: embedding of the time, a module `time [b] -> [b d]`.
        chunk: number of actions; each place has a learned position.
        action_dim: size of one action.
        width: token size.
        num_layers: depth.
        num_heads: attention heads.
        mlp_width: hidden units of each layer's perceptron.
        dropout: rate on residual branches and hidden units.
        dtype: compute precision of the layers; parameters stay float32.
    """

    time: nn.Module
    chunk: int
    action_dim: int
    width: int = 512
    num_layers: int = 4
    num_heads: int = 8
    mlp_width: int = 2048
    dropout: float = 0.0
    dtype: str = "float32"

    def setup(self):
        self.position = self.param(
            "position", nn.initializers.normal(0.02), (self.chunk, self.width)
        )
        self.action_in = nn.Dense(self.width)
        self.time_in, self.time_out = nn.Dense(self.width), nn.Dense(self.width)
        self.layers = [
            DiTLayer(
                self.width, self.num_heads, self.mlp_width, self.dropout, self.dtype
            )
            for _ in range(self.num_layers)
        ]
        zeros = nn.initializers.zeros
        self.final_modulation = nn.Dense(2 * self.width, kernel_init=zeros)
        self.final_norm = nn.LayerNorm(use_bias=False, use_scale=False)
        self.action_out = nn.Dense(self.action_dim, kernel_init=zeros)

    def prepare(self, context: Context) -> Memory:
        """Keys and values of every layer."""
        tokens = context.tokens
        layers = tuple(layer.remember(tokens.values) for layer in self.layers)
        return Memory(layers, tokens.mask[:, None])

    def __call__(
        self,
        noisy: Float[Array, "b c a"],
        time: Float[Array, " b"],
        prepared: Memory,
        *,
        train: bool,
    ) -> Float[Array, "b c a"]:
        x = self.action_in(noisy) + self.position[None]
        t = self.time_out(nn.swish(self.time_in(self.time(time))))
        t = nn.swish(t)  # [b d]
        for layer, memory in zip(self.layers, prepared.layers, strict=True):
            x = layer(x, t, memory, prepared.mask, train=train)
        x = x.astype(jnp.float32)
        shift, scale = jnp.split(self.final_modulation(t)[:, None], 2, -1)
        return self.action_out(self.final_norm(x) * (1 + scale) + shift)
