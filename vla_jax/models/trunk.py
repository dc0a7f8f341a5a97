"""The trunk: token groups of a window of frames, read by readout tokens."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.models.transformer import Block, Transformer, blockwise_mask
from vla_jax.types import Context, Tokens

READOUT = "readout"


class BlockwiseTrunk(nn.Module):
    """A transformer over `[task | frame 1 | ... | frame t | readouts]`.

    The task is read by everybody and reads only itself, a frame reads the task and all
    frames up to its own, readouts read everything and are read only by each other
    (block-wise attention as in Octo, 2024). Missing inputs are masked.

    Attributes:
        width: token size inside the trunk.
        num_layers: depth.
        num_heads: attention heads.
        mlp_width: hidden units of each layer's perceptron.
        num_readouts: learned queries for the head.
        dropout: rate inside the layers.
        dtype: compute precision.
        task_groups: names of the groups that describe the task; all others are frames.
        scan, remat, attention_kernel: how the layers are computed, see `Transformer`.
    """

    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    num_readouts: int = 1
    dropout: float = 0.0
    dtype: str = "float32"
    task_groups: tuple[str, ...] = ("language",)
    scan: bool = False
    remat: str = "none"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(self, context: Context, *, train: bool) -> Context:
        """Fills `context.tokens` `[b n d]` and `context.readout` `[b r d]`."""
        groups = context.groups
        if not groups:
            raise ValueError("The trunk got no tokens: no encoder made any group.")
        if READOUT in groups:
            raise ValueError(f"The group name {READOUT!r} is the trunk's own.")
        task = [name for name in groups if name in self.task_groups]
        frames = [name for name in groups if name not in self.task_groups]
        window = context.observation.frame_mask.shape[1]
        projected = {
            name: self._project(name, groups[name], is_frame=name in frames)
            for name in groups
        }
        blocks, parts = [], []
        for name in task:
            blocks.append(Block(name, groups[name].values.shape[2], tuple(task)))
            parts.append(_frame(projected[name], 0))
        for frame in range(window):
            for name in frames:
                length = groups[name].values.shape[2]
                blocks.append(Block(name, length, (*task, *frames), frame))
                parts.append(_frame(projected[name], frame))
        num_tokens = sum(block.num_tokens for block in blocks)
        batch = parts[0].values.shape[0]
        readout = self.param(
            READOUT, nn.initializers.normal(0.02), (self.num_readouts, self.width)
        )
        readout = jnp.broadcast_to(
            readout[None], (batch, self.num_readouts, self.width)
        )
        blocks.append(
            Block(READOUT, self.num_readouts, (*task, *frames, READOUT), window - 1)
        )
        parts.append(Tokens(readout, jnp.ones(readout.shape[:2], bool)))
        x, real = _concatenate(parts)
        mask = jnp.asarray(blockwise_mask(blocks))[None] & real[:, None, :]
        x = Transformer(
            self.num_layers,
            self.num_heads,
            self.mlp_width,
            self.dropout,
            self.dtype,
            self.scan,
            self.remat,
            self.attention_kernel,
            name="transformer",
        )(x, mask, train=train)
        x = x.astype(jnp.float32)
        tokens = Tokens(values=x[:, :num_tokens], mask=real[:, :num_tokens])
        return context.replace(tokens=tokens, readout=x[:, num_tokens:])

    def _project(self, name: str, group: Tokens, *, is_frame: bool) -> Tokens:
        """Brings a group to the trunk's width and says which group and frame it is."""
        x: Float[Array, "b t n d"] = nn.Dense(self.width, name=f"{name}_project")(
            group.values
        )
        frames = x.shape[1] if is_frame else 1
        kind = self.param(
            f"{name}_embedding",
            nn.initializers.normal(0.02),
            (frames, group.values.shape[2], self.width),
        )
        return Tokens(values=x + kind[None], mask=group.mask)


def _frame(group: Tokens, frame: int) -> Tokens:
    return Tokens(values=group.values[:, frame], mask=group.mask[:, frame])


def _concatenate(parts: Sequence[Tokens]) -> tuple[jnp.ndarray, jnp.ndarray]:
    values = jnp.concatenate([part.values for part in parts], 1)  # [b n d]
    return values, jnp.concatenate([part.mask for part in parts], 1)
