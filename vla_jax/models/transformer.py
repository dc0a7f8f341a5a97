"""Transformer layers and the block-wise attention mask.

The mask is stated by blocks of tokens with the same reading rights, never by loops over
token pairs: a block names the blocks that it reads, and time only runs forward.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


@dataclasses.dataclass(frozen=True)
class Block:
    """A run of consecutive tokens with the same reading rights.

    Attributes:
        name: group of the tokens, such as "language", "primary" or "readout".
        num_tokens: length of the run.
        reads: names of the groups that it may read; list its own name to read itself.
        frame: position in the window, or None for what is known from the start.
            Tokens never read a later frame.
        causal: tokens of this run read only earlier tokens of it and themselves.
    """

    name: str
    num_tokens: int
    reads: tuple[str, ...]
    frame: int | None = None
    causal: bool = False


def blockwise_mask(blocks: Sequence[Block]) -> np.ndarray:
    """Which token may read which.

    Returns:
        bool `[n n]`, row = reader, column = what is read.

    Raises:
        ValueError: a block reads a group that does not exist.
    """
    names = {block.name for block in blocks}
    for block in blocks:
        unknown = sorted(set(block.reads) - names)
        if unknown:
            raise ValueError(
                f"Block {block.name!r} reads {unknown}, but the sequence has only "
                f"{sorted(names)}."
            )
    owner = np.repeat(np.arange(len(blocks)), [block.num_tokens for block in blocks])
    allowed = np.array(
        [[_may_read(reader, read) for read in blocks] for reader in blocks], bool
    ).reshape(len(blocks), len(blocks))
    mask = allowed[owner[:, None], owner[None, :]]
    causal = np.array([block.causal for block in blocks], bool)[owner]
    position = np.arange(len(owner))
    same_block = owner[:, None] == owner[None, :]
    later = position[None, :] > position[:, None]
    return mask & ~(causal[:, None] & same_block & later)


def _may_read(reader: Block, read: Block) -> bool:
    if read.name not in reader.reads:
        return False
    if read.frame is None:
        return True
    return reader.frame is None or read.frame <= reader.frame


class Attention(nn.Module):
    """Multi-head attention with a float32 softmax.

    A reader that may read nothing gets zeros, not the average of everything.

    Attributes:
        num_heads: heads; the width must be a multiple of it.
        dtype: compute precision of the projections.
    """

    num_heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q d"],
        memory: Float[Array, "b n e"],
        mask: Bool[Array, "#b #q n"],
    ) -> Float[Array, "b q d"]:
        width = query.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"width {width} is not a multiple of {self.num_heads}.")
        shape = (self.num_heads, width // self.num_heads)

        def project(name, x):
            return nn.DenseGeneral(shape, dtype=self.dtype, name=name)(x)

        q, k, v = project("q", query), project("k", memory), project("v", memory)
        out = attend(q, k, v, mask)
        return nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name="out")(out)


def attend(
    q: Float[Array, "b q h e"],
    k: Float[Array, "b n h e"],
    v: Float[Array, "b n h e"],
    mask: Bool[Array, "#b #q n"],
) -> Float[Array, "b q h e"]:
    """Attention of every head, softmax in float32; zeros where nothing may be read."""
    scores = jnp.einsum("bqhe,bnhe->bhqn", q, k) / np.sqrt(q.shape[-1])
    scores = jnp.where(mask[:, None], scores.astype(jnp.float32), -1e30)
    weights = jax.nn.softmax(scores)
    weights = jnp.where(mask.any(-1)[:, None, :, None], weights, 0.0)
    return jnp.einsum("bhqn,bnhe->bqhe", weights.astype(v.dtype), v)


class Layer(nn.Module):
    """Pre-norm transformer layer: self-attention, then a two-layer perceptron."""

    num_heads: int
    mlp_width: int
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b n n"], *, train: bool
    ) -> Float[Array, "b n d"]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        y = nn.LayerNorm(dtype=self.dtype, name="attention_norm")(x)
        y = Attention(self.num_heads, self.dtype, name="attention")(y, y, mask)
        x = x + drop(y)
        y = nn.LayerNorm(dtype=self.dtype, name="mlp_norm")(x)
        y = nn.gelu(nn.Dense(self.mlp_width, dtype=self.dtype, name="mlp_in")(y))
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(drop(y))
        return x + drop(y)


class Transformer(nn.Module):
    """A stack of pre-norm layers with a final norm.

    Attributes:
        num_layers: depth.
        num_heads: attention heads per layer.
        mlp_width: hidden units of each perceptron.
        dropout: rate on residual branches and hidden units.
        dtype: compute precision; parameters stay float32.
    """

    num_layers: int
    num_heads: int
    mlp_width: int
    dropout: float = 0.0
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b n n"], *, train: bool
    ) -> Float[Array, "b n d"]:
        for index in range(self.num_layers):
            x = Layer(
                self.num_heads,
                self.mlp_width,
                self.dropout,
                self.dtype,
                name=f"layer_{index}",
            )(x, mask, train=train)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x)
