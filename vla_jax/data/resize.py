"""Images, depth and camera matrices at another size; needs nothing but NumPy.

Training and serving both call these functions, so a policy always sees the same pixels
for the same camera image. A robot's computer may lack Pillow; the arithmetic here is
Pillow's, in the same integers. Only which axis comes first depends on Pillow's version,
and with it the rounding in between: pixels differ by one level of 255 at most.
"""

import functools

import numpy as np

try:
    from PIL import Image
except ImportError:  # slower
    Image = None

_BITS = 22  # fractional bits of a weight in Pillow's resampling of 8-bit images


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [h, w, 3] bilinearly, averaging over what a smaller pixel covers.

    Where Pillow is installed it does the work, several times as fast.
    """
    if image.shape[:2] == (height, width):
        return image
    if Image is None:
        return resize_with_numpy(image, height, width)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def resize_with_numpy(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """What `resize` gives, without Pillow."""
    h, w = image.shape[:2]
    if w != width:
        image = _resample(image.swapaxes(0, 1), width).swapaxes(0, 1)
    if h != height:
        image = _resample(image, height)
    return np.ascontiguousarray(image)


def resize_depth(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes depth [h, w] to the nearest pixel, never in between."""
    rows, columns = (
        ((np.arange(size) + 0.5) * have / size).astype(int)
        for size, have in zip((height, width), depth.shape, strict=True)
    )
    return depth[rows[:, None], columns]


def scale_intrinsics(
    intrinsics: np.ndarray, size: tuple[int, int], new_size: tuple[int, int]
) -> np.ndarray:
    """Intrinsics [... 3 3] after resizing an image, sizes as height and width.

    Pixel coordinates begin at the corner of the first pixel, so they all scale alike.
    """
    (height, width), (new_height, new_width) = size, new_size
    scale = np.array([new_width / width, new_height / height, 1.0], np.float32)
    return intrinsics * scale[:, None]


def _resample(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the first axis of uint8 [n, m, 3]."""
    # All numbers are integers below 2**53: float64 is exact, and fast as a product.
    sums = np.tensordot(_weights(image.shape[0], size), image.astype(np.float64), 1)
    rounded = np.floor((sums + 2.0 ** (_BITS - 1)) / 2.0**_BITS)
    return np.clip(rounded, 0, 255).astype(np.uint8)


@functools.lru_cache(32)
def _weights(have: int, size: int) -> np.ndarray:
    """Weights of a triangle filter in fixed point, [size, have]."""
    weights = np.zeros((size, have))
    scale = have / size
    stretch = max(scale, 1.0)
    for row in range(size):
        center = (row + 0.5) * scale
        first = max(int(center - stretch + 0.5), 0)
        last = min(int(center + stretch + 0.5), have)
        distance = (np.arange(first, last) - center + 0.5) * (1.0 / stretch)
        triangle = np.maximum(1 - np.abs(distance), 0)
        # Summed one by one, because Pillow does so.
        fixed = triangle / np.cumsum(triangle)[-1] * 2.0**_BITS
        weights[row, first:last] = np.floor(fixed + 0.5)
    return weights
