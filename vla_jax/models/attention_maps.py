"""Multistage spatial attention: a few maps, each from several depths of a CNN.

At every stage a gate made from the features is multiplied with a key made from the
picture itself; the mean over the stages, sharpened by a softmax over all positions, is
the map of a point, and its expected position is the point (Cai et al., 2026).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vla_jax.models.image import Levels, pick_level
from vla_jax.names import did_you_mean

_random = nn.initializers.lecun_normal()  # Flax's own for a linear layer
_SLOPE = 0.3  # of the leaky ReLUs, as in EIPL


class LevelStages(nn.Module):
    """The stages are levels of the policy's own image encoder.

    Attributes:
        levels: names, the finest first; it sets the resolution of the maps.
    """

    levels: tuple[str, ...] = ("layer1", "layer2", "layer3")

    @property
    def encoder_levels(self) -> tuple[str, ...]:
        """Levels of the encoder that this needs."""
        return self.levels

    @nn.compact
    def __call__(
        self, image: Float[Array, "n h w 3"], levels: Levels
    ) -> tuple[Float[Array, "n _h _w _d"], ...]:
        del image
        return tuple(pick_level(levels, name) for name in self.levels)


class ConvStages(nn.Module):
    """The stages are a small stack of 3x3 convolutions of its own, stride 1.

    Attributes:
        source: "image", or the level of the image encoder to start from.
        reduce: factor by which the image is averaged down first; 1 keeps all pixels.
        widths: channels of each stage.
    """

    source: str = "image"
    reduce: int = 4
    widths: tuple[int, ...] = (16, 32, 64)

    @property
    def encoder_levels(self) -> tuple[str, ...]:
        """Levels of the encoder that this needs."""
        return () if self.source == "image" else (self.source,)

    @nn.compact
    def __call__(
        self, image: Float[Array, "n h w 3"], levels: Levels
    ) -> tuple[Float[Array, "n _h _w _d"], ...]:
        if self.source == "image":
            height, width = (size // self.reduce for size in image.shape[1:3])
            x = resize_area(image, height, width)
        else:
            x = pick_level(levels, self.source)
        stages = []
        for index, channels in enumerate(self.widths):
            x = nn.Conv(channels, (3, 3), use_bias=False, name=f"conv_{index}")(x)
            x = nn.leaky_relu(InstanceNorm(name=f"norm_{index}")(x), _SLOPE)
            stages.append(x)
        return tuple(stages)


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and deviation 1 over all positions.

    It gives a map the same scale whatever the picture, and a temperature a meaning.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "n h w k"]) -> Float[Array, "n h w k"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        mean = jnp.mean(x, (1, 2), keepdims=True)
        variance = jnp.var(x, (1, 2), keepdims=True)
        x = (x - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return x * scale[None, None, None] + bias[None, None, None]


def _opponent_colors(rng, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """A kernel `[3 k]` whose columns are the axes of opponent colors and their ends."""
    del rng
    axes = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]]).T
    axes = axes / np.linalg.norm(axes, axis=0)
    ends = np.concatenate([axes, -axes], 1)
    return jnp.asarray(ends[:, np.arange(shape[1]) % 6], dtype)


def _identity(rng, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    del rng
    return jnp.eye(*shape, dtype=dtype)


class MultistageMaps(nn.Module):
    """Attention maps of the points of one camera.

    Attributes:
        stages: `LevelStages` or `ConvStages`.
        num_points: maps, one for each point.
        key: "image", averaged down to the size of the maps, or the name of a level.
        combine: "mean" over the stages, or "concat" and one convolution.
        norm: "instance", or "none" for maps as they come.
        temperature: of the softmax; the lower, the fewer pixels make a point.
        start: "random", or "opponent": point by point on what is brightest, reddest
            rather than green, yellowest rather than blue, darkest, greenest, bluest in
            the picture, and so on in turn (the opponent colors of Itti et al., 1998).
            Where the first maps happen to lie on nothing of use, training seldom moves
            them there: a point that stands still tells it nothing.
    """

    stages: nn.Module
    num_points: int = 6
    key: str = "image"
    combine: str = "mean"
    norm: str = "instance"
    temperature: float = 0.05
    start: str = "random"

    @property
    def encoder_levels(self) -> tuple[str, ...]:
        """Levels of the image encoder that this needs."""
        key = () if self.key == "image" else (self.key,)
        return (*self.stages.encoder_levels, *key)

    @nn.compact
    def __call__(
        self, image: Float[Array, "n h w 3"], levels: Levels
    ) -> Float[Array, "n k _h _w"]:
        """Maps that each sum to 1.

        Args:
            image: scaled to -1..1.
            levels: features of the same images.

        Raises:
            ValueError: an unknown choice, or a level that the encoder does not have.
        """
        self._check()
        stages = self.stages(image, levels)
        height, width = stages[0].shape[1:3]
        source = image if self.key == "image" else pick_level(levels, self.key)
        opponent = self.start == "opponent"
        key_init = _opponent_colors if opponent else _random
        key = self._project("key", resize_area(source, height, width), key_init)
        gated = []
        for index, features in enumerate(stages):
            gate = jax.nn.sigmoid(self._project(f"query_{index}", features))
            gated.append(key * _resize(gate, height, width))
        if self.combine == "concat":
            logits = self._activate("mix", jnp.concatenate(gated, -1), _random)
        else:
            # One convolution with one norm for all stages, run on them side by side.
            n = len(image)
            mix_init = _identity if opponent else _random
            mixed = self._activate("mix", jnp.concatenate(gated, 0), mix_init)
            logits = jnp.mean(mixed.reshape(len(gated), n, *mixed.shape[1:]), 0)
        logits = jnp.moveaxis(logits, -1, 1)  # [n k h w]
        return spatial_softmax(logits, self.temperature)

    def _project(self, name: str, x: jax.Array, init=_random) -> jax.Array:
        """A 1x1 convolution to one channel for each point, normalized."""
        plain = self.norm == "none"
        x = nn.Dense(self.num_points, use_bias=plain, kernel_init=init, name=name)(x)
        return x if plain else InstanceNorm(name=f"{name}_norm")(x)

    def _activate(self, name: str, x: jax.Array, init) -> jax.Array:
        return nn.leaky_relu(self._project(name, x, init), _SLOPE)

    def _check(self) -> None:
        for value, known in (
            (self.combine, ("mean", "concat")),
            (self.norm, ("instance", "none")),
            (self.start, ("random", "opponent")),
        ):
            if value not in known:
                raise ValueError(f"Unknown {value!r}; {did_you_mean(value, known)}")
        if self.start == "opponent" and (self.key, self.combine) != ("image", "mean"):
            raise ValueError(
                "start='opponent' needs key='image' and combine='mean', got "
                f"{self.key!r} and {self.combine!r}."
            )
        if not self.temperature > 0:
            raise ValueError(
                f"temperature is {self.temperature}; expected more than 0."
            )


def spatial_softmax(
    logits: Float[Array, "n k h w"], temperature: float
) -> Float[Array, "n k h w"]:
    """The softmax over all positions of each map, in float32."""
    n, k, h, w = logits.shape
    flat = logits.astype(jnp.float32).reshape(n, k, h * w) / temperature
    return jax.nn.softmax(flat, axis=-1).reshape(n, k, h, w)


def expected_position(maps: Float[Array, "n k h w"]) -> Float[Array, "n k 2"]:
    """The mean position (x, y) under maps that sum to 1, in -1..1.

    -1 is the center of the first column or row of the map and 1 that of the last.
    """
    h, w = maps.shape[2:]
    x = jnp.einsum("nkhw,w->nk", maps, jnp.linspace(-1, 1, w))
    y = jnp.einsum("nkhw,h->nk", maps, jnp.linspace(-1, 1, h))
    return jnp.stack([x, y], -1)


def cells_in_use(maps: Float[Array, "b t k h w"]) -> Float[Array, ""]:
    """The mean over maps of 1 / sum P^2: 1 for a single cell, all for an even map.

    A point whose map lies evenly over the background stands still in the middle.
    """
    maps = jax.lax.stop_gradient(maps)
    return jnp.mean(1 / jnp.sum(jnp.square(maps), (3, 4)))


def resize_area(
    image: Float[Array, "n h w d"], height: int, width: int
) -> Float[Array, "n _h _w d"]:
    """Averages over what a larger pixel covers; nothing to do where the size agrees."""
    n, h, w, d = image.shape
    if (h, w) == (height, width):
        return image
    if h % height == 0 and w % width == 0:
        blocks = image.reshape(n, height, h // height, width, w // width, d)
        return jnp.mean(blocks, (2, 4))
    return jax.image.resize(image, (n, height, width, d), "linear", antialias=True)


def _resize(x: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear, pixel centers at half-integers (`align_corners=False` in PyTorch)."""
    if x.shape[1:3] == (height, width):
        return x
    return jax.image.resize(x, (len(x), height, width, x.shape[-1]), "linear")
