"""Image encoders for training from scratch, and how features become tokens."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vla_jax.types import Tokens

Levels = Mapping[str, jax.Array]  # level name -> [b t h w d]


def scale_pixels(image: jax.Array) -> jax.Array:
    """Maps pixels from 0..255 (uint8 or float) to -1..1."""
    return image.astype(jnp.float32) / 127.5 - 1.0


class ConvEncoder(nn.Module):
    """A small strided convolutional encoder, made to be fast on a CPU too.

    The stem cuts the image into patches, because a convolution whose stride equals its
    kernel is one matrix product. Only the last stage is normalized: on the large maps
    before it, the gradient of a norm costs as much as the convolution.

    Attributes:
        patch: side of the stem's patches, in pixels.
        widths: channels of the stem and of each further stage.
        strides: stride of each stage after the stem.
    """

    patch: int = 4
    widths: tuple[int, ...] = (32, 64, 64)
    strides: tuple[int, ...] = (2, 1)

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "n h w 3"],
        *,
        train: bool,
        levels: tuple[str, ...] = (),
    ) -> Levels:
        """Levels "stem", "stage1", ... `[n h' w' d]` of images scaled to -1..1.

        With `levels` the computation ends after the last of them.
        """
        del train
        if len(self.strides) != len(self.widths) - 1:
            raise ValueError(
                f"{len(self.widths)} widths need {len(self.widths) - 1} strides, "
                f"not {len(self.strides)}."
            )
        height, width = image.shape[1:3]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"Images are {height}x{width}; both sides must be multiples of "
                f"patch={self.patch}."
            )
        found = {}
        for index, channels in enumerate(self.widths):
            if levels and set(levels) <= set(found):
                break
            if index == 0:
                size, stride, name = (self.patch,) * 2, self.patch, "stem"
            else:
                size, stride, name = (3, 3), self.strides[index - 1], f"stage{index}"
            image = nn.Conv(channels, size, (stride, stride), name=name)(image)
            if index == len(self.widths) - 1:
                image = nn.LayerNorm(name="norm")(image)
            image = nn.relu(image)
            found[name] = image
        return found


class GridTokens(nn.Module):
    """One token per cell of a feature level, with learned positions.

    Attributes:
        level: name of the feature level that is read.
        width: size of a token.
    """

    level: str
    width: int

    @nn.compact
    def __call__(self, levels: Levels, mask: Bool[Array, "b t"]) -> Tokens:
        """Tokens `[b t n d]`; all of a frame are masked where its image is missing."""
        x = pick_level(levels, self.level)
        b, t, h, w = x.shape[:4]
        x = nn.Dense(self.width, name="project")(x.reshape(b, t, h * w, -1))
        position = self.param(
            "position", nn.initializers.normal(0.02), (h * w, self.width)
        )
        mask = jnp.broadcast_to(mask[..., None], (b, t, h * w))
        return Tokens(values=x + position[None, None], mask=mask)


class FlatTokens(nn.Module):
    """A few tokens that each read a whole feature level through one matrix.

    Every cell has weights of its own, so where something is can be read off at once:
    this learns much faster than attention when there is one fixed camera and little
    compute.

    Attributes:
        level: name of the feature level that is read.
        width: size of a token.
        num_tokens: tokens per frame.
        channels: features kept of every cell.
    """

    level: str
    width: int
    num_tokens: int = 2
    channels: int = 16

    @nn.compact
    def __call__(self, levels: Levels, mask: Bool[Array, "b t"]) -> Tokens:
        """Tokens `[b t n d]`; all of a frame are masked where its image is missing."""
        x = nn.relu(
            nn.Dense(self.channels, name="reduce")(pick_level(levels, self.level))
        )
        b, t = x.shape[:2]
        x = nn.Dense(self.num_tokens * self.width, name="read")(x.reshape(b, t, -1))
        x = x.reshape(b, t, self.num_tokens, self.width)
        mask = jnp.broadcast_to(mask[..., None], (b, t, self.num_tokens))
        return Tokens(values=x, mask=mask)


class PointTokens(nn.Module):
    """Where each of several learned features is: a spatial softmax over one level.

    Every point is the expected image position under a softmax map (Levine et al.,
    2016), precise below the grid's resolution. Its token holds the position, also as
    sines and cosines so that small shifts are large differences, the map's spread and
    the features under it.

    Attributes:
        level: name of the feature level that is read.
        width: size of a token.
        num_points: softmax maps.
        num_tokens: tokens per frame; must divide `num_points`.
        temperature: initial softmax temperature, learned from there.
        num_frequencies: octaves of sines and cosines of a position; 0 leaves them out.
    """

    level: str
    width: int
    num_points: int = 32
    num_tokens: int = 4
    temperature: float = 1.0
    num_frequencies: int = 4

    @nn.compact
    def __call__(self, levels: Levels, mask: Bool[Array, "b t"]) -> Tokens:
        """Tokens `[b t n d]`; all of a frame are masked where its image is missing."""
        if self.num_points % self.num_tokens:
            raise ValueError(
                f"num_points={self.num_points} is not a multiple of "
                f"num_tokens={self.num_tokens}."
            )
        x = pick_level(levels, self.level)
        b, t, h, w, channels = x.shape
        x = x.reshape(b, t, h * w, channels)
        scale = self.param(
            "log_scale",
            nn.initializers.constant(-jnp.log(self.temperature)),
            (self.num_points,),
        )
        logits = (
            nn.Dense(self.num_points, name="maps")(x) * jnp.exp(scale)[None, None, None]
        )
        maps = jax.nn.softmax(logits, axis=2)  # [b t hw k]
        rows, columns = jnp.meshgrid(
            jnp.linspace(-1, 1, h), jnp.linspace(-1, 1, w), indexing="ij"
        )
        grid = jnp.stack([columns, rows], -1).reshape(h * w, 2)
        points = jnp.einsum("btnk,nx->btkx", maps, grid)
        spread = jnp.einsum("btnk,n->btk", maps, jnp.sum(grid**2, -1))
        spread = spread - jnp.sum(points**2, -1)
        under = jnp.einsum("btnk,btnd->btkd", maps, nn.Dense(8, name="value")(x))
        code = [points, spread[..., None], under]
        for octave in range(self.num_frequencies):
            angle = jnp.pi * 2.0**octave * points
            code += [jnp.sin(angle), jnp.cos(angle)]
        code = jnp.concatenate(code, -1)
        code = code.reshape(b, t, self.num_tokens, -1)
        # Each token has its own projection: a point's meaning is its position in line.
        kernel = self.param(
            "project",
            nn.initializers.lecun_normal(in_axis=1, out_axis=2, batch_axis=(0,)),
            (self.num_tokens, code.shape[-1], self.width),
        )
        bias = self.param("bias", nn.initializers.zeros, (self.num_tokens, self.width))
        values = jnp.einsum("btnc,ncd->btnd", code, kernel) + bias[None, None]
        mask = jnp.broadcast_to(mask[..., None], (b, t, self.num_tokens))
        return Tokens(values=values, mask=mask)


def pick_level(levels: Levels, name: str) -> jax.Array:
    """One feature level.

    Raises:
        ValueError: the encoder has no such level.
    """
    if name not in levels:
        raise ValueError(
            f"Unknown feature level {name!r}; the encoder has {sorted(levels)}."
        )
    return levels[name]
