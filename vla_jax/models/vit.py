"""Vision transformers (Dosovitskiy et al., 2021), as MAE and as CLIP train them.

A tower gives its patches as a feature map, so that every token module can read them,
and the token of the whole picture as a map of one cell.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vla_jax.models.image import Levels
from vla_jax.models.pre_norm import PreNormStack
from vla_jax.names import did_you_mean

# Fields of a tower: `dict(name="vit", patch=16, **VIT_SIZES["B"])`.
VIT_SIZES: dict[str, dict[str, int]] = {
    "test": dict(width=16, num_layers=2, num_heads=2),
    "S": dict(width=384, num_layers=12, num_heads=6),
    "B": dict(width=768, num_layers=12, num_heads=12),
    "L": dict(width=1024, num_layers=24, num_heads=16),
}

# Mean and deviation of RGB in 0..1 that weights were trained with.
PIXELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
}


class ViT(nn.Module):
    """A vision transformer with a class token, as in MAE (He et al., 2022) and timm.

    Attributes:
        width: size of a token.
        num_layers: depth.
        num_heads: attention heads.
        patch: side of a patch in pixels: 14, 16 or 32 in published models.
        image_size: side of the images that the positions are kept for, in pixels; for
            images of another size they are interpolated.
        levels: numbers of further layers whose patches are given, from 1 on.
        pixels: key of `PIXELS`.
        epsilon: of the norms; 1e-6 in MAE and timm, 1e-12 in transformers.
        dtype: compute precision of the layers.
        remat, attention_kernel: how they are computed, see `PreNormStack`.
    """

    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    patch: int = 16
    image_size: int = 224
    levels: tuple[int, ...] = ()
    pixels: str = "imagenet"
    epsilon: float = 1e-6
    dtype: str = "float32"
    remat: str = "none"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(self, image: Float[Array, "n h w 3"], *, train: bool) -> Levels:
        """Levels `[n h' w' d]` of images scaled to -1..1.

        "patches" and "cls" (one cell) behind the final norm; "layer3" as the third
        layer gives it.

        Raises:
            ValueError: sides that the patch does not divide, an unknown level or kind
                of pixels.
        """
        x, grid = _embed(self, image, self.pixels, use_bias=True)
        outputs = _layers(self, x, "gelu", train=train)
        x = nn.LayerNorm(epsilon=self.epsilon, name="norm")(outputs[-1])
        return {
            "cls": x[:, :1, None],
            "patches": _map(x, grid),
            **_further(self, outputs, grid),
        }


class CLIPVision(nn.Module):
    """The vision tower of CLIP (Radford et al., 2021).

    It differs from `ViT` by a norm before the layers, by its activation, and by a final
    norm that only the class token passes.

    Attributes:
        width, num_layers, num_heads, patch, image_size, levels, dtype, remat,
            attention_kernel: as in `ViT`.
        projection: size of the space shared with text; 0 leaves the level out.
        activation: "quick_gelu" in OpenAI's models, "gelu" in most of OpenCLIP's.
        epsilon: of the norms.
    """

    width: int = 768
    num_layers: int = 12
    num_heads: int = 12
    patch: int = 32
    image_size: int = 224
    levels: tuple[int, ...] = ()
    projection: int = 0
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    dtype: str = "float32"
    remat: str = "none"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(self, image: Float[Array, "n h w 3"], *, train: bool) -> Levels:
        """Levels `[n h' w' d]` of images scaled to -1..1.

        "patches" as the last layer gives them; "cls", one cell behind the final norm;
        "projected", the same in the space shared with text, not normalized; "layer3" as
        the third layer gives it.

        Raises:
            ValueError: sides that the patch does not divide, or an unknown level.
        """
        x, grid = _embed(self, image, "clip", use_bias=False)
        x = nn.LayerNorm(epsilon=self.epsilon, name="pre_norm")(x)
        outputs = _layers(self, x, self.activation, train=train)
        pooled = nn.LayerNorm(epsilon=self.epsilon, name="norm")(outputs[-1][:, :1])
        levels = {
            "cls": pooled[:, :, None],
            "patches": _map(outputs[-1], grid),
            **_further(self, outputs, grid),
        }
        if self.projection:
            project = nn.Dense(self.projection, use_bias=False, name="project")
            levels["projected"] = project(pooled)[:, :, None]
        return levels


def interpolate_positions(
    table: Float[Array, "n d"], grid: tuple[int, int]
) -> Float[Array, "m d"]:
    """Positions of a square grid of patches for a grid of another shape.

    Bicubic as in PyTorch (a = -0.75, without smoothing where the grid shrinks), which
    is how weights are usually taken to another size.

    Args:
        table: the class token's position, then those of the patches, row by row.
        grid: rows and columns wanted.
    """
    side = round((len(table) - 1) ** 0.5)
    if grid == (side, side):
        return table
    rows, columns = (cubic_weights(side, count) for count in grid)
    patches = table[1:].reshape(side, side, -1)
    patches = jnp.einsum("hi,wj,ijd->hwd", rows, columns, patches)
    return jnp.concatenate([table[:1], patches.reshape(grid[0] * grid[1], -1)])


def cubic_weights(old: int, new: int) -> np.ndarray:
    """The matrix `[new old]` of Keys' cubic convolution, edges repeated, a = -0.75."""
    a = -0.75
    center = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(center).astype(int) - 1
    weights = np.zeros((new, old), np.float32)
    for tap in range(4):
        distance = np.abs(center - (first + tap))
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        place = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), place), np.where(distance <= 1, near, far))
    return weights


def _embed(
    tower: nn.Module, image: jax.Array, pixels: str, *, use_bias: bool
) -> tuple[jax.Array, tuple[int, int]]:
    """The class token and the patches `[n 1+hw d]` with positions; rows and columns."""
    if pixels not in PIXELS:
        raise ValueError(f"Unknown pixels {pixels!r}; {did_you_mean(pixels, PIXELS)}")
    patch, (height, width) = tower.patch, image.shape[1:3]
    if height % patch or width % patch or tower.image_size % patch:
        raise ValueError(
            f"Images are {height}x{width} and image_size is {tower.image_size}; all "
            f"sides must be multiples of patch={patch}."
        )
    mean, std = (jnp.array(value)[None, None, None] for value in PIXELS[pixels])
    x = ((image + 1) / 2 - mean) / std
    x = nn.Conv(
        tower.width,
        (patch, patch),
        (patch, patch),
        padding="VALID",
        use_bias=use_bias,
        name="embed",
    )(x)
    n, *grid = x.shape[:3]
    normal = nn.initializers.normal(0.02)
    token = tower.param("class_token", normal, (tower.width,))
    side = tower.image_size // patch
    table = tower.param("position", normal, (1 + side * side, tower.width))
    token = jnp.broadcast_to(token[None, None], (n, 1, tower.width))
    x = jnp.concatenate([token, x.reshape(n, -1, tower.width)], 1)
    return x + interpolate_positions(table, tuple(grid))[None], tuple(grid)


def _layers(
    tower: nn.Module, x: jax.Array, activation: str, *, train: bool
) -> tuple[jax.Array, ...]:
    stack = PreNormStack(
        tower.num_layers,
        tower.num_heads,
        4 * tower.width,
        activation,
        tower.epsilon,
        dtype=tower.dtype,
        attention_kernel=tower.attention_kernel,
        remat=tower.remat,
        name="layers",
    )
    return stack(x, jnp.ones((1, 1, x.shape[1]), bool), train=train)


def _further(tower: nn.Module, outputs: tuple, grid: tuple[int, int]) -> Levels:
    unknown = [n for n in tower.levels if not 1 <= n <= tower.num_layers]
    if unknown:
        raise ValueError(
            f"levels has {unknown}, but the layers are 1 to {tower.num_layers}."
        )
    return {f"layer{n}": _map(outputs[n - 1], grid) for n in tower.levels}


def _map(x: jax.Array, grid: tuple[int, int]) -> jax.Array:
    return x[:, 1:].reshape(x.shape[0], *grid, x.shape[-1])
