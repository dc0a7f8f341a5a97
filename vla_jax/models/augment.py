"""Image augmentation inside the jitted step, so that the host only decodes.

One draw per example and camera serves every frame of the window and all that belongs
to the picture: jitter between two frames would look like motion, and depth, camera
matrices and label images have to follow the pixels.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vla_jax.names import check_keys
from vla_jax.types import Batch


def make_augment(
    config: Mapping[str, float | int | Mapping[str, float | int]],
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
        cameras = sorted(batch.observation.image)
        absent = sorted(set(table) - set(cameras) - {"default"})
        if absent:
            raise ValueError(
                f"train.augment names the cameras {absent}; choose from {cameras} and "
                "'default'."
            )
        for index, camera in enumerate(cameras):
            strengths = table.get(camera, table.get("default", {}))
            size = len(batch.action)
            draw = draw_augmentation(jax.random.fold_in(rng, index), size, **strengths)
            batch = _augment_camera(draw, batch, camera)
        return batch

    return augment


class Augmentation(NamedTuple):
    """What is done to one camera's pictures; None where that kind is off.

    Attributes:
        max_shift: largest shift in pixels.
        corner: int [b 2], first row and column kept of the padded picture.
        gain: float [b], factor of the contrast.
        offset: float [b], added to the brightness, in pixel values.
    """

    max_shift: int
    corner: jax.Array | None
    gain: jax.Array | None
    offset: jax.Array | None


def draw_augmentation(
    rng: jax.Array,
    size: int,
    *,
    shift: int = 0,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> Augmentation:
    """Draws for `size` examples; the strengths are those of `make_augment`."""
    shift_rng, brightness_rng, contrast_rng = jax.random.split(rng, 3)
    corner = gain = offset = None
    if shift:
        corner = jax.random.randint(shift_rng, (size, 2), 0, 2 * shift + 1)
    if brightness or contrast:
        gain = jax.random.uniform(
            contrast_rng, (size,), minval=1 - contrast, maxval=1 + contrast
        )
        offset = 255 * jax.random.uniform(
            brightness_rng, (size,), minval=-brightness, maxval=brightness
        )
    return Augmentation(shift, corner, gain, offset)


def augment_image(draw: Augmentation, image: jax.Array) -> jax.Array:
    """Shifts and recolors images `[b t h w 3]` of 0..255."""
    image = shift_image(draw, image)
    if draw.gain is None:
        return image
    image = image.astype(jnp.float32)
    mean = jnp.mean(image, (1, 2, 3, 4), keepdims=True)
    gain, offset = (x[:, None, None, None, None] for x in (draw.gain, draw.offset))
    return jnp.clip((image - mean) * gain + mean + offset, 0.0, 255.0)


def shift_image(draw: Augmentation, image: jax.Array) -> jax.Array:
    """Shifts images `[b t h w ...]`, repeating their edges."""
    if draw.corner is None:
        return image
    shift = draw.max_shift
    padding = [(0, 0)] * image.ndim
    padding[2] = padding[3] = (shift, shift)
    padded = jnp.pad(image, padding, mode="edge")

    def cut(padded, corner):
        start = [0] * padded.ndim
        start[1:3] = corner[0], corner[1]
        return jax.lax.dynamic_slice(padded, start, image.shape[1:])

    return jax.vmap(cut)(padded, draw.corner)


def shift_intrinsics(draw: Augmentation, intrinsics: jax.Array) -> jax.Array:
    """Moves the principal points of `[b t 3 3]` with the pixels; unknown stay zero."""
    if draw.corner is None:
        return intrinsics
    rows, columns = jnp.moveaxis(draw.max_shift - draw.corner, 1, 0)
    move = jnp.stack([columns, rows, jnp.zeros_like(rows)], 1).astype(jnp.float32)
    known = intrinsics[..., 2, 2]
    return intrinsics.at[..., 2].add(known[..., None] * move[:, None, :])


def _augment_camera(draw: Augmentation, batch: Batch, camera: str) -> Batch:
    """Applies one draw to everything that the camera saw."""
    observation = batch.observation
    image = {camera: augment_image(draw, observation.image[camera])}
    observation = observation.replace(image=observation.image | image)
    if camera in observation.depth:
        depth = {camera: shift_image(draw, observation.depth[camera])}
        observation = observation.replace(depth=observation.depth | depth)
    if "intrinsics" in observation.camera.get(camera, {}):
        matrices = dict(observation.camera[camera])
        matrices["intrinsics"] = shift_intrinsics(draw, matrices["intrinsics"])
        observation = observation.replace(
            camera=observation.camera | {camera: matrices}
        )
    labels = dict(batch.labels)
    for name, label in labels.items():
        if isinstance(label, Mapping) and camera in label.get("image", {}):
            image = {camera: augment_image(draw, label["image"][camera])}
            labels[name] = {**label, "image": {**label["image"], **image}}
    return batch.replace(observation=observation, labels=labels)
