"""Text encoders: from instruction tokens to language tokens."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.models.transformer import Transformer
from vla_jax.types import Task, Tokens


class TextTransformer(nn.Module):
    """A small bidirectional transformer over token embeddings, trained from scratch.

    Attributes:
        vocab_size: number of token ids.
        width: size of a token.
        num_layers: depth; 0 gives plain embeddings with positions.
        num_heads: attention heads.
        length: longest instruction, in tokens.
        dtype: compute precision of the layers.
        scan, remat, attention_kernel: how the layers are computed, see `Transformer`.
    """

    vocab_size: int
    width: int
    num_layers: int = 1
    num_heads: int = 4
    length: int = 32
    dtype: str = "float32"
    scan: bool = False
    remat: str = "none"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(self, task: Task, *, train: bool) -> Tokens:
        """Tokens `[b l d]`; padding is masked and read by nobody."""
        length = task.tokens.shape[1]
        if length > self.length:
            raise ValueError(
                f"Instructions have {length} tokens, the text encoder takes at most "
                f"{self.length}: set model.text.length."
            )
        x = nn.Embed(self.vocab_size, self.width, name="embed")(task.tokens)
        position = self.param(
            "position", nn.initializers.normal(0.02), (self.length, self.width)
        )
        x: Float[Array, "b l d"] = x + position[None, :length]
        readable = task.token_mask[:, None, :] & task.token_mask[:, :, None]
        if self.num_layers:
            x = Transformer(
                self.num_layers,
                self.num_heads,
                4 * self.width,
                dtype=self.dtype,
                scan=self.scan,
                remat=self.remat,
                attention_kernel=self.attention_kernel,
                name="transformer",
            )(x, readable, train=train).astype(jnp.float32)
        x = jnp.where(task.token_mask[..., None], x, 0.0)
        return Tokens(values=x, mask=task.token_mask)
