"""The trunk of ACT: a post-norm encoder over all tokens, read by learned queries.

The queries' outputs are the readouts, one for each action of the chunk, so that any
head may read them. The tokens that it reads keep content and position apart.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vla_jax.models.image import Levels, pick_level
from vla_jax.models.post_norm import (
    NORM_EPSILON,
    DecoderLayer,
    PostNormEncoder,
    TorchDense,
    sine_positions_2d,
)
from vla_jax.types import Context, Tokens


class EncoderDecoderTrunk(nn.Module):
    """Transformer encoder and decoder of ACT (Zhao et al., 2023).

    Every group of tokens must come in the trunk's width. One without positions of its
    own (proprio, latent, points, words) gets a learned table, drawn from N(0, 1).

    Attributes:
        width: size of a token.
        num_layers: encoder layers.
        num_decoder_layers: decoder layers that are computed and read. ACT's code
            configures seven and then returns the output of the first, so that only one
            is ever trained; 1 is what it does, 7 is what it says.
        num_heads: attention heads.
        mlp_width: hidden units of each layer's perceptron.
        num_readouts: learned queries; one per action of the chunk.
        dropout: rate inside the layers.
        dtype: compute precision.
    """

    width: int = 512
    num_layers: int = 4
    num_decoder_layers: int = 1
    num_heads: int = 8
    mlp_width: int = 3200
    num_readouts: int = 100
    dropout: float = 0.1
    dtype: str = "float32"

    @nn.compact
    def __call__(self, context: Context, *, train: bool) -> Context:
        """Fills `context.tokens` `[b n d]` and `context.readout` `[b r d]`.

        Raises:
            ValueError: no tokens at all, or a group of another width.
        """
        if not context.groups:
            raise ValueError("The trunk got no tokens: no encoder made any group.")
        window = context.observation.frame_mask.shape[1]
        parts = [self._flatten(name, context, window) for name in context.groups]
        values, positions, masks = zip(*parts, strict=True)
        x, mask = jnp.concatenate(values, 1), jnp.concatenate(masks, 1)  # [b n d]
        position = jnp.concatenate(positions, 0)[None]  # [1 n d]
        fields = (self.num_heads, self.mlp_width, self.dropout, "xavier", self.dtype)
        memory = PostNormEncoder(self.num_layers, *fields, name="encoder")(
            x, position, mask, train=train
        )
        query = self._embedding("readout_position", self.num_readouts)[None]
        readout = jnp.zeros((x.shape[0], self.num_readouts, self.width))
        for index in range(self.num_decoder_layers):
            layer = DecoderLayer(*fields, name=f"decoder_{index}")
            readout = layer(readout, query, memory, position, mask, train=train)
        readout = nn.LayerNorm(epsilon=NORM_EPSILON, name="norm")(readout)
        memory = memory.astype(jnp.float32)
        return context.replace(tokens=Tokens(memory, mask), readout=readout)

    def _flatten(
        self, name: str, context: Context, window: int
    ) -> tuple[Float[Array, "b n d"], Float[Array, "n d"], Bool[Array, "b n"]]:
        """Values, positions and mask of a group over all of its frames."""
        group = context.groups[name]
        b, t, n, width = group.values.shape
        if width != self.width:
            raise ValueError(
                f"Tokens of {name!r} have {width} numbers, the trunk {self.width}; "
                "make them of the trunk's width."
            )
        if group.position is None:
            position = self._embedding(f"{name}_position", n)
        else:
            position = group.position
        position = jnp.broadcast_to(position[None], (t, n, width))
        if window > 1 and t == window:
            frame = self._embedding(f"{name}_frame_position", window)
            position = position + frame[:, None]
        flat = group.values.reshape(b, t * n, width)
        return flat, position.reshape(t * n, width), group.mask.reshape(b, t * n)

    def _embedding(self, name: str, count: int) -> Float[Array, "n d"]:
        return self.param(name, nn.initializers.normal(1.0), (count, self.width))


class SineGridTokens(nn.Module):
    """One token per cell of a feature level, with DETR's fixed sine positions.

    All cameras have the same positions: ACT tells cameras apart by content alone.

    Attributes:
        level: name of the feature level that is read.
        width: size of a token.
        dtype: compute precision; tokens are float32 in any case.
    """

    level: str
    width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, levels: Levels, mask: Bool[Array, "b t"]) -> Tokens:
        """Tokens `[b t n d]`; all of a frame are masked where its image is missing."""
        x: jax.Array = pick_level(levels, self.level)
        b, t, h, w = x.shape[:4]
        project = TorchDense(self.width, self.dtype, name="project")
        x = project(x.reshape(b, t, h * w, -1)).astype(jnp.float32)
        position = sine_positions_2d(h, w, self.width).reshape(h * w, -1)
        mask = jnp.broadcast_to(mask[..., None], (b, t, h * w))
        return Tokens(values=x, mask=mask, position=jnp.asarray(position))
