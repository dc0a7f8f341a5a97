"""Transformer layers and the block-wise attention mask.

The mask is stated by blocks of tokens with the same reading rights, never by loops over
token pairs: a block names the blocks that it reads, and time only runs forward.

A stack may be *scanned*: one layer is compiled and run over parameters that lie behind
each other on a first axis, `layers/...` instead of `layer_0/...`, `layer_1/...`
(`models/layers.py` converts). It may be *rematerialized*: what the backward pass needs
is computed again instead of kept.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vla_jax.models.attention import Attention
from vla_jax.models.dropout import Dropout
from vla_jax.names import did_you_mean


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


# What the backward pass may keep of a layer; None of the others is its input.
REMAT = {
    "none": None,  # everything
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # of projections
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Layer(nn.Module):
    """Pre-norm transformer layer: self-attention, then a two-layer perceptron."""

    num_heads: int
    mlp_width: int
    dropout: float = 0.0
    dtype: str = "float32"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b n n"], *, train: bool
    ) -> Float[Array, "b n d"]:
        drop = Dropout(self.dropout, deterministic=not train)
        y = nn.LayerNorm(dtype=self.dtype, name="attention_norm")(x)
        attention = Attention(
            self.num_heads, self.dtype, self.attention_kernel, name="attention"
        )
        y = attention(y, y, mask)
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
        scan: whether the layers share one compiled body.
        remat: what the backward pass computes again, one of `REMAT`.
        attention_kernel: one of `vla_jax.models.attention.IMPLEMENTATIONS`.
    """

    num_layers: int
    num_heads: int
    mlp_width: int
    dropout: float = 0.0
    dtype: str = "float32"
    scan: bool = False
    remat: str = "none"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b n n"], *, train: bool
    ) -> Float[Array, "b n d"]:
        if self.remat not in REMAT:
            raise ValueError(
                f"Unknown remat {self.remat!r}; {did_you_mean(self.remat, REMAT)}"
            )

        def run(layer, x, mask):
            return layer(x, mask, train=train)

        if self.remat != "none":
            # Inside of a scan nothing can be merged with the forward pass anyway.
            run = nn.remat(run, policy=REMAT[self.remat], prevent_cse=not self.scan)
        fields = (self.num_heads, self.mlp_width, self.dropout)
        fields = (*fields, self.dtype, self.attention_kernel)
        if self.scan and self.num_layers:
            # A scan keeps the type of what it carries.
            x = x.astype(jnp.result_type(x, self.dtype))
            x, _ = nn.scan(
                lambda layer, x, mask: (run(layer, x, mask), None),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                length=self.num_layers,
            )(Layer(*fields, name="layers"), x, mask)
        else:
            for index in range(self.num_layers):
                x = run(Layer(*fields, name=f"layer_{index}"), x, mask)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x)
