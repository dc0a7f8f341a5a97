"""The text tower of CLIP (Radford et al., 2021)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.models.pre_norm import PreNormStack
from vla_jax.types import Task, Tokens


class CLIPText(nn.Module):
    """A causal transformer over token ids.

    With CLIP's own vocabulary (`data.text.model`, a folder with vocab.json and
    merges.txt) the ids are those that its weights know. With any other tokenizer it is
    an ordinary text encoder to be trained.

    Attributes:
        vocab_size: number of token ids; 49,408 in CLIP.
        width: size of a token.
        num_layers: depth.
        num_heads: attention heads.
        length: longest instruction, in tokens.
        projection: size of the space shared with images.
        pool: give one token for the whole instruction: that of its last word, projected
            and of length 1. Otherwise all tokens behind the final norm.
        activation: "quick_gelu" in OpenAI's models, "gelu" in most of OpenCLIP's.
        dtype: compute precision of the layers.
        remat, attention_kernel: how they are computed, see `PreNormStack`.
    """

    vocab_size: int = 49408
    width: int = 512
    num_layers: int = 12
    num_heads: int = 8
    length: int = 77
    projection: int = 512
    pool: bool = True
    activation: str = "quick_gelu"
    dtype: str = "float32"
    remat: str = "none"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(self, task: Task, *, train: bool) -> Tokens:
        """Tokens `[b l d]`, or `[b 1 d]` when pooled; no words give a masked token.

        Raises:
            ValueError: more tokens than `length`.
        """
        batch, length = task.tokens.shape
        if length > self.length:
            raise ValueError(
                f"Instructions have {length} tokens, CLIP's text tower takes at most "
                f"{self.length}: lower data.text.length."
            )
        x = nn.Embed(self.vocab_size, self.width, name="embed")(task.tokens)
        table = self.param(
            "position", nn.initializers.normal(0.01), (self.length, self.width)
        )
        x: Float[Array, "b l d"] = x + table[None, :length]
        readable = jnp.tril(jnp.ones((length, length), bool))[None]
        x = PreNormStack(
            self.num_layers,
            self.num_heads,
            4 * self.width,
            self.activation,
            epsilon=1e-5,
            dtype=self.dtype,
            attention_kernel=self.attention_kernel,
            remat=self.remat,
            name="layers",
        )(x, readable & task.token_mask[:, None], train=train)[-1]
        x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        if not self.pool:
            return Tokens(
                jnp.where(task.token_mask[..., None], x, 0.0), task.token_mask
            )
        count = jnp.sum(task.token_mask, 1)
        last = x[jnp.arange(batch), jnp.maximum(count - 1, 0)]
        last = nn.Dense(self.projection, use_bias=False, name="project")(last)
        last = last / (jnp.linalg.norm(last, axis=-1, keepdims=True) + 1e-6)
        real = count[:, None] > 0
        return Tokens(jnp.where(real, last, 0.0)[:, None], real)
