"""ResNet (He et al., 2016) with its feature levels, as torchvision builds it.

Convolutions of stride 2 pad both sides alike, as PyTorch does. Flax's "SAME" pads only
the far side there, which moves every feature by half a cell.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vla_jax.models.image import Levels
from vla_jax.names import did_you_mean

STAGES: dict[int, tuple[int, ...]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
}
BOTTLENECK = (50,)  # depths whose blocks are 1x1, 3x3, 1x1 with four times the output
LEVELS = ("stem", "layer1", "layer2", "layer3", "layer4")

# Statistics of ImageNet, RGB in 0..1.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class FrozenBatchNorm(nn.Module):
    """Batch normalization with everything constant, affine parameters too.

    The constants live in the collection "constants": no optimizer, weight decay or
    average touches them.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result; it is computed in float32.
    """

    epsilon: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n h w d"]:
        def constant(name, initializer):
            return self.variable("constants", name, initializer, x.shape[-1:]).value

        scale = constant("scale", jnp.ones)
        bias = constant("bias", jnp.zeros)
        mean, variance = constant("mean", jnp.zeros), constant("var", jnp.ones)
        factor = scale * jax.lax.rsqrt(variance + self.epsilon)
        shift = bias - mean * factor
        y = x * factor[None, None, None] + shift[None, None, None]
        return y.astype(self.dtype)


class ResNet(nn.Module):
    """ResNet-18, 34 or 50 without its classifier.

    Attributes:
        depth: 18, 34 or 50.
        norm: "frozen" for batch normalization with constants, made for weights from a
            file; "group" for group normalization with 16 channels a group, made for
            training from scratch, also at small batches.
        width: channels of the stem and of layer1; 64 in every published model.
        last: the last level that is computed; later layers do not exist then.
        dtype: compute precision; levels are float32 in any case, and so is what a norm
            computes.
    """

    depth: int = 18
    norm: str = "frozen"
    width: int = 64
    last: str = "layer4"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "n h w 3"],
        *,
        train: bool,
        levels: tuple[str, ...] = (),
    ) -> Levels:
        """Levels "stem" (after pooling), "layer1" ... `[n h' w' d]`, strides 4 to 32.

        Args:
            image: pixels scaled to -1..1; mean and deviation of ImageNet are applied
                here.
            train: not used; the norms do the same in training.
            levels: stop after the last of these; empty for all.

        Raises:
            ValueError: an unknown depth, norm or level.
        """
        del train
        _check(self.depth, self.norm, self.last, *levels)
        last = max(LEVELS.index(level) for level in levels or (self.last,))
        mean, std = jnp.array(_MEAN), jnp.array(_STD)
        x = ((image + 1) / 2 - mean[None, None, None]) / std[None, None, None]
        x = _convolve(self.width, 7, 2, "stem_conv", self.dtype)(x)
        x = nn.relu(_make_norm(self.norm, "stem_norm", self.dtype)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pads with -inf
        found = {"stem": x.astype(jnp.float32)}
        block = _Bottleneck if self.depth in BOTTLENECK else _Basic
        for number, count in enumerate(STAGES[self.depth], start=1):
            level = f"layer{number}"
            if number > last:
                break
            for index in range(count):
                x = block(
                    width=self.width * 2 ** (number - 1),
                    stride=2 if index == 0 and number > 1 else 1,
                    norm=self.norm,
                    dtype=self.dtype,
                    name=f"{level}_{index}",
                )(x)
            found[level] = x.astype(jnp.float32)
        return found


class _Basic(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    width: int
    stride: int
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n _h _w _d"]:
        y = _convolve(self.width, 3, self.stride, "conv1", self.dtype)(x)
        y = nn.relu(_make_norm(self.norm, "norm1", self.dtype)(y))
        y = _convolve(self.width, 3, 1, "conv2", self.dtype)(y)
        y = _make_norm(self.norm, "norm2", self.dtype)(y)
        return nn.relu(y + _shortcut(x, self.width, self.stride, self.norm, self.dtype))


class _Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the width, beside a shortcut."""

    width: int
    stride: int
    norm: str
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n _h _w _d"]:
        y = _convolve(self.width, 1, 1, "conv1", self.dtype)(x)
        y = nn.relu(_make_norm(self.norm, "norm1", self.dtype)(y))
        y = _convolve(self.width, 3, self.stride, "conv2", self.dtype)(y)
        y = nn.relu(_make_norm(self.norm, "norm2", self.dtype)(y))
        y = _convolve(4 * self.width, 1, 1, "conv3", self.dtype)(y)
        y = _make_norm(self.norm, "norm3", self.dtype)(y)
        return nn.relu(
            y + _shortcut(x, 4 * self.width, self.stride, self.norm, self.dtype)
        )


def _make_norm(kind: str, name: str, dtype: str) -> nn.Module:
    """The norm of a convolution: "frozen" or "group"."""
    if kind == "frozen":
        return FrozenBatchNorm(dtype=dtype, name=name)
    return nn.GroupNorm(
        num_groups=None, group_size=16, epsilon=1e-5, dtype=dtype, name=name
    )


def _shortcut(
    x: jax.Array, width: int, stride: int, norm: str, dtype: str
) -> jax.Array:
    """The input itself, or projected where its shape changes."""
    if stride == 1 and x.shape[-1] == width:
        return x
    x = _convolve(width, 1, stride, "shortcut_conv", dtype)(x)
    return _make_norm(norm, "shortcut_norm", dtype)(x)


def _convolve(width: int, size: int, stride: int, name: str, dtype: str) -> nn.Conv:
    """A convolution with PyTorch's padding and torchvision's initialization."""
    padding = ((size // 2, size // 2),) * 2
    return nn.Conv(
        width,
        (size, size),
        (stride, stride),
        padding,
        use_bias=False,
        dtype=dtype,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        name=name,
    )


def _check(depth: int, norm: str, *levels: str) -> None:
    if depth not in STAGES:
        raise ValueError(f"No ResNet of depth {depth}; choose one of {list(STAGES)}.")
    if norm not in ("frozen", "group"):
        raise ValueError(
            f"Unknown norm {norm!r}; {did_you_mean(norm, ('frozen', 'group'))}"
        )
    for level in levels:
        if level not in LEVELS:
            raise ValueError(f"Unknown level {level!r}; {did_you_mean(level, LEVELS)}")
