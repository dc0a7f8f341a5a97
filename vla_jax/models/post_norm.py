"""Post-norm transformer layers with positions apart from contents, as in DETR and ACT.

Positions are added to queries and keys at every layer and never to values, so what is
mixed and passed on is content alone (Carion et al., 2020; Zhao et al., 2023).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vla_jax.names import did_you_mean

# PyTorch's default for linear layers and convolutions: uniform in +-1/sqrt(fan_in).
_torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Xavier over query, key and value stacked to one matrix [d, 3d], as PyTorch keeps them.
_xavier_stacked = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")
_xavier = nn.initializers.xavier_uniform()

INITS = ("xavier", "torch")
NORM_EPSILON = 1e-5  # PyTorch's; Flax's default is 1e-6


class TorchDense(nn.Module):
    """A linear layer that starts as PyTorch's does, its bias too.

    Attributes:
        width: size of the output.
        dtype: compute precision.
    """

    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "*n e"]) -> Float[Array, "*n d"]:
        return _dense(self.width, x.shape[-1], "torch", self.dtype, "linear")(x)


class PostNormAttention(nn.Module):
    """Multi-head attention whose queries, keys and values come apart.

    Attributes:
        num_heads: heads; the width must be a multiple of it.
        dropout: rate on the attention weights.
        initializer: "xavier" for every matrix, or "torch" for the defaults of
            `torch.nn.MultiheadAttention`; they differ in the output matrix.
        dtype: compute precision of the projections; the softmax is float32.
    """

    num_heads: int
    dropout: float = 0.0
    initializer: str = "xavier"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q d"],
        key: Float[Array, "b n d"],
        value: Float[Array, "b n d"],
        mask: Bool[Array, "b n"],
        *,
        train: bool,
    ) -> Float[Array, "b q d"]:
        """Reads the values whose `mask` is True; zeros where there is none."""
        width = query.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"width {width} is not a multiple of {self.num_heads}.")

        def project(name, x):
            dense = nn.Dense(
                width, dtype=self.dtype, kernel_init=_xavier_stacked, name=name
            )
            return dense(x).reshape(*x.shape[:2], self.num_heads, -1)

        q, k, v = project("q", query), project("k", key), project("v", value)
        scores = jnp.einsum("bqhe,bnhe->bhqn", q, k) / np.sqrt(q.shape[-1])
        scores = jnp.where(mask[:, None, None], scores.astype(jnp.float32), -1e30)
        weights = jnp.where(
            mask.any(-1)[:, None, None, None], jax.nn.softmax(scores), 0
        )
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        out = jnp.einsum("bhqn,bnhe->bqhe", weights.astype(v.dtype), v)
        out_init = {"xavier": _xavier, "torch": _torch_uniform}[
            _known(self.initializer)
        ]
        return nn.Dense(width, dtype=self.dtype, kernel_init=out_init, name="out")(
            out.reshape(query.shape)
        )


class EncoderLayer(nn.Module):
    """Self-attention and a ReLU perceptron, each with a norm after the residual sum."""

    num_heads: int
    mlp_width: int
    dropout: float = 0.1
    initializer: str = "xavier"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        position: Float[Array, "#b n d"],
        mask: Bool[Array, "b n"],
        *,
        train: bool,
    ) -> Float[Array, "b n d"]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        attention = PostNormAttention(
            self.num_heads, self.dropout, self.initializer, self.dtype, name="attention"
        )
        y = attention(x + position, x + position, x, mask, train=train)
        x = _norm("attention_norm")(x + drop(y))
        y = _perceptron(self.mlp_width, self.initializer, self.dtype, drop, x)
        return _norm("mlp_norm")(x + drop(y))


class DecoderLayer(nn.Module):
    """Self-attention of the queries, attention to the memory, a ReLU perceptron."""

    num_heads: int
    mlp_width: int
    dropout: float = 0.1
    initializer: str = "xavier"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b r d"],
        query_position: Float[Array, "#b r d"],
        memory: Float[Array, "b n d"],
        position: Float[Array, "#b n d"],
        mask: Bool[Array, "b n"],
        *,
        train: bool,
    ) -> Float[Array, "b r d"]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        fields = (self.num_heads, self.dropout, self.initializer, self.dtype)
        attention = PostNormAttention(*fields, name="attention")
        cross_attention = PostNormAttention(*fields, name="cross_attention")
        placed = x + query_position
        everything = jnp.ones(x.shape[:2], bool)
        y = attention(placed, placed, x, everything, train=train)
        x = _norm("attention_norm")(x + drop(y))
        y = cross_attention(
            x + query_position, memory + position, memory, mask, train=train
        )
        x = _norm("cross_norm")(x + drop(y))
        y = _perceptron(self.mlp_width, self.initializer, self.dtype, drop, x)
        return _norm("mlp_norm")(x + drop(y))


class PostNormEncoder(nn.Module):
    """A stack of `EncoderLayer` without a norm at its end.

    Attributes:
        num_layers: depth.
        num_heads: attention heads per layer.
        mlp_width: hidden units of each perceptron.
        dropout: rate on attention weights, hidden units and residual branches.
        initializer: "xavier" or "torch", see `PostNormAttention`.
        dtype: compute precision; parameters and norms stay float32.
    """

    num_layers: int
    num_heads: int
    mlp_width: int
    dropout: float = 0.1
    initializer: str = "xavier"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n d"],
        position: Float[Array, "#b n d"],
        mask: Bool[Array, "b n"],
        *,
        train: bool,
    ) -> Float[Array, "b n d"]:
        fields = (
            self.num_heads,
            self.mlp_width,
            self.dropout,
            self.initializer,
            self.dtype,
        )
        for index in range(self.num_layers):
            layer = EncoderLayer(*fields, name=f"layer_{index}")
            x = layer(x, position, mask, train=train)
        return x


def sine_positions_1d(length: int, width: int) -> np.ndarray:
    """The table `[n d]` of Vaswani et al. (2017): sine on even, cosine on odd i."""
    index = np.arange(width)
    angle = np.arange(length)[:, None] / 10000 ** (2 * (index // 2) / width)
    return np.where(index % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def sine_positions_2d(height: int, width: int, size: int) -> np.ndarray:
    """DETR's positions `[h w d]` of a feature map: rows first, then columns.

    Row i of h, counted from 1, stands at the angle 2 pi i / (h + 1e-6); each axis has
    `size / 2` channels of frequencies 10000^(-2 floor(i/2) / (size / 2)).
    """
    if size % 4:
        raise ValueError(f"A position of {size} numbers does not divide by 4.")
    half = size // 2
    index = np.arange(half)
    frequency = 10000.0 ** (2 * (index // 2) / half)

    def axis(count: int) -> np.ndarray:
        place = np.arange(1, count + 1) / (count + 1e-6) * 2 * np.pi
        angle = place[:, None] / frequency
        return np.where(index % 2 == 0, np.sin(angle), np.cos(angle))

    rows = np.broadcast_to(axis(height)[:, None], (height, width, half))
    columns = np.broadcast_to(axis(width)[None], (height, width, half))
    return np.concatenate([rows, columns], -1).astype(np.float32)


def _perceptron(width: int, init: str, dtype: str, drop, x: jax.Array) -> jax.Array:
    """ACT's feed-forward part: one ReLU layer; its module is the caller's."""
    y = nn.relu(_dense(width, x.shape[-1], init, dtype, "mlp_in")(x))
    return _dense(x.shape[-1], width, init, dtype, "mlp_out")(drop(y))


def _dense(width: int, fan_in: int, init: str, dtype: str, name: str) -> nn.Dense:
    """A linear layer; the bias starts as PyTorch's, uniform in +-1/sqrt(fan_in)."""
    bound = 1 / np.sqrt(fan_in)
    return nn.Dense(
        width,
        dtype=dtype,
        kernel_init={"xavier": _xavier, "torch": _torch_uniform}[_known(init)],
        bias_init=lambda rng, shape, dtype: jax.random.uniform(
            rng, shape, dtype, -bound, bound
        ),
        name=name,
    )


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=NORM_EPSILON, name=name)


def _known(init: str) -> str:
    if init not in INITS:
        raise ValueError(f"Unknown init {init!r}; {did_you_mean(init, INITS)}")
    return init
