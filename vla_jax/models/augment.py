"""Image augmentation inside the jitted step, so that the host only decodes.

The same draw serves every frame of a window: jitter between two frames of one
observation would look like motion.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from vla_jax.names import check_keys
from vla_jax.types import Batch


def make_augment(
    config: Mapping[str, float | Mapping[str, float]],
) -> Callable[[jax.Array, Batch], Batch]:
    """Binds the strengths of `train.augment`.

    Args:
        config: `shift` in pixels (random translation, edges repeated), `brightness` and
            `contrast` as relative half-ranges, each 0 (off) when absent; or one dict of
            these per camera, with `default` for the others.

    Returns:
        `(rng, batch) -> batch`, pure, with images of 0..255: float32 where colors
        change, else uint8 as they came. It raises a `ValueError` for strengths of a
        camera that the batch does not have.

    Raises:
        ValueError: an unknown strength.
    """
    per_camera = any(isinstance(value, Mapping) for value in config.values())
    table = dict(config) if per_camera else {"default": dict(config)}
    known = ("shift", "brightness", "contrast")
    for camera, strengths in table.items():
        check_keys(strengths, known, f"train.augment for {camera!r}")

    def augment(rng: jax.Array, batch: Batch) -> Batch:
        images = dict(batch.observation.image)
        absent = sorted(set(table) - set(images) - {"default"})
        if absent:
            raise ValueError(
                f"train.augment names the cameras {absent}; choose from "
                f"{sorted(images)} and 'default'."
            )
        for index, camera in enumerate(sorted(images)):
            strengths = table.get(camera, table.get("default", {}))
            images[camera] = augment_image(
                jax.random.fold_in(rng, index), images[camera], **strengths
            )
        return batch.replace(observation=batch.observation.replace(image=images))

    return augment


def augment_image(
    rng: jax.Array,
    image: jax.Array,
    *,
    shift: int = 0,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> jax.Array:
    """Shifts and recolors images `[b t h w 3]` of 0..255, one draw per example."""
    shift_rng, brightness_rng, contrast_rng = jax.random.split(rng, 3)
    batch = image.shape[0]
    if shift:
        image = jax.vmap(_shift, (0, 0, None))(
            image, jax.random.randint(shift_rng, (batch, 2), 0, 2 * shift + 1), shift
        )
    if brightness or contrast:
        shape = (batch, 1, 1, 1, 1)
        image = image.astype(jnp.float32)
        gain = jax.random.uniform(
            contrast_rng, shape, minval=1 - contrast, maxval=1 + contrast
        )
        offset = 255 * jax.random.uniform(
            brightness_rng, shape, minval=-brightness, maxval=brightness
        )
        mean = jnp.mean(image, (1, 2, 3, 4), keepdims=True)
        image = jnp.clip((image - mean) * gain + mean + offset, 0.0, 255.0)
    return image


def _shift(image: jax.Array, corner: jax.Array, shift: int) -> jax.Array:
    padding = ((0, 0), (shift, shift), (shift, shift), (0, 0))
    padded = jnp.pad(image, padding, mode="edge")  # [t h+2s w+2s 3]
    start = (0, corner[0], corner[1], 0)
    return jax.lax.dynamic_slice(padded, start, image.shape)
