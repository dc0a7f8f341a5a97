"""The trunk of GR-1 (Wu et al., 2023): a causal transformer over a history of frames.

Every frame is a run of tokens, the instruction among them, and a token reads those
before it. The queries of the actions stand at the end and nobody reads them, not even
they themselves.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vla_jax.models.pre_norm import PreNormStack
from vla_jax.types import Context, Tokens


def gr1_mask(num_tokens: int, num_queries: int) -> Bool[np.ndarray, "n n"]:
    """Which token may read which; row = reader, column = what is read.

    Args:
        num_tokens: tokens of all frames, oldest first. Each reads itself and those
            before it.
        num_queries: queries behind them. They read all tokens and no query.
    """
    mask = np.tril(np.ones((num_tokens + num_queries,) * 2, bool))
    mask[:, num_tokens:] = False
    return mask


class GR1Trunk(nn.Module):
    """A GPT-2 without positions, over `[frame 1 | ... | frame t | queries]`.

    A frame holds the instruction, what else describes the task, proprio, and for each
    camera its patches and last the token of the whole picture. All tokens of a frame
    get the same learned embedding of its place in the window.

    The original also puts queries behind every earlier frame, to predict the actions of
    all frames of a window at once. Nobody reads them, so that leaving them out changes
    no other token; here every frame is in its turn the last one of a window.

    Attributes:
        width: token size inside the trunk.
        num_layers: depth.
        num_heads: attention heads.
        mlp_width: hidden units of each layer's perceptron.
        num_readouts: queries, one per action of the chunk.
        dropout: rate on tokens and residual branches.
        keep_history: whether heads get the tokens of all frames; else only those of the
            present one.
        dtype: compute precision.
        remat, attention_kernel: how the layers are computed, see `PreNormStack`.
    """

    width: int = 384
    num_layers: int = 12
    num_heads: int = 12
    mlp_width: int = 1536
    num_readouts: int = 10
    dropout: float = 0.1
    keep_history: bool = False
    dtype: str = "float32"
    remat: str = "none"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(self, context: Context, *, train: bool) -> Context:
        """Fills `context.tokens` `[b n d]` and `context.readout` `[b r d]`.

        Raises:
            ValueError: no tokens at all.
        """
        if not context.groups:
            raise ValueError("The trunk got no tokens: no encoder made any group.")
        window = context.observation.frame_mask.shape[1]
        parts = [self._frames(name, context, window) for name in _order(context)]
        values = jnp.concatenate([part.values for part in parts], 2)  # [b t n d]
        real = jnp.concatenate([part.mask for part in parts], 2)
        real = real & context.observation.frame_mask[..., None]
        b, _, n, _ = values.shape
        normal = nn.initializers.normal(0.02)
        time = self.param("frame_embedding", normal, (window, self.width))
        values = (values + time[None, :, None]).reshape(b, window * n, self.width)
        query = self.param("query", normal, (self.num_readouts, self.width))
        query = jnp.broadcast_to(query[None], (b, *query.shape))
        x = jnp.concatenate([values, query], 1)
        x = nn.LayerNorm(epsilon=1e-5, name="embed_norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        real = jnp.pad(real.reshape(b, -1), ((0, 0), (0, self.num_readouts)))
        mask = jnp.asarray(gr1_mask(window * n, self.num_readouts))
        x = PreNormStack(
            self.num_layers,
            self.num_heads,
            self.mlp_width,
            "relu",
            1e-5,
            self.dropout,
            self.dtype,
            self.attention_kernel,
            self.remat,
            name="layers",
        )(x, mask[None] & real[:, None], train=train)[-1]
        x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        first = 0 if self.keep_history else (window - 1) * n
        kept = slice(first, window * n)
        tokens = Tokens(values=x[:, kept], mask=real[:, kept])
        return context.replace(tokens=tokens, readout=x[:, window * n :])

    def _frames(self, name: str, context: Context, window: int) -> Tokens:
        """A group in the trunk's width `[b t n d]`, repeated in every frame if need be.

        A camera's last token is that of the whole picture and has a matrix of its own.
        """
        group = context.groups[name]
        x: Float[Array, "b t n d"] = group.values
        if name in context.features and x.shape[2] > 1:
            patches = nn.Dense(self.width, name=f"{name}_patches")(x[:, :, :-1])
            whole = nn.Dense(self.width, name=f"{name}_whole")(x[:, :, -1:])
            x = jnp.concatenate([patches, whole], 2)
        else:
            x = nn.Dense(self.width, name=f"{name}_project")(x)
        shape = (x.shape[0], window, x.shape[2])
        mask = jnp.broadcast_to(group.mask, shape)
        return Tokens(jnp.broadcast_to(x, (*shape, self.width)), mask)


class ArmGripperProprio(nn.Module):
    """One token of proprio, from a part for the arm and one for the gripper.

    GR-1 gives its gripper, open or closed, as two numbers of which one is 1. A linear
    layer on those is one on a single number with a bias, which is what this has; so a
    gripper measured in between is no special case.

    Attributes:
        width: size of the token.
        gripper_dims: last dimensions of proprio that belong to the gripper.
    """

    width: int
    gripper_dims: int = 1

    @nn.compact
    def __call__(self, proprio: Float[Array, "b t p"]) -> Float[Array, "b t d"]:
        """One token of every frame.

        Raises:
            ValueError: no dimension is left for the arm, or none for the gripper.
        """
        if not 0 < self.gripper_dims < proprio.shape[-1]:
            raise ValueError(
                f"gripper_dims is {self.gripper_dims}, but proprio has "
                f"{proprio.shape[-1]} dimensions and the arm needs some."
            )
        num_arm = proprio.shape[-1] - self.gripper_dims
        arm, gripper = proprio[..., :num_arm], proprio[..., num_arm:]
        arm = nn.Dense(self.width, name="arm")(arm)
        gripper = nn.Dense(self.width, name="gripper")(gripper)
        both = jnp.concatenate([arm, gripper], -1)
        return nn.Dense(self.width, name="both")(both)


def _order(context: Context) -> list[str]:
    """What describes the task, then proprio and the like, then the cameras."""
    groups, cameras = context.groups, context.features
    task = [name for name in ("language", "latent") if name in groups]
    views = [name for name in groups if name in cameras]
    return [*task, *(n for n in groups if n not in (*task, *views)), *views]
