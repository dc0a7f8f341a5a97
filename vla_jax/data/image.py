"""Encoded images to pixels, straight into the memory of the batch.

JPEG is decoded by libjpeg-turbo's accurate integer method, which gives the same pixels
as PIL and OpenCV, and without the interpreter lock, so that threads decode in parallel.
"""

import io

import numpy as np
import simplejpeg
from PIL import Image

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


def decode(data: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG image to uint8 [h, w, 3]; gray is repeated, alpha dropped.

    Raises:
        ValueError: bytes that are no such image, are cut short or are damaged.
    """
    if data[:2] == _JPEG:
        return simplejpeg.decode_jpeg(data)
    if data[: len(_PNG)] != _PNG:
        raise ValueError(
            f"{len(data)} bytes that begin with {bytes(data[:8]).hex(' ')} are neither "
            "JPEG nor PNG"
        )
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in _MODES:
                raise ValueError(
                    f"PNG of mode {image.mode} is no color image of 8 bits per channel"
                )
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # what pillow raises for a damaged PNG
        raise ValueError(f"damaged PNG: {error}") from error


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [h, w, 3] bilinearly, averaging over what a smaller pixel covers.

    Training and serving both call this function, so a policy always sees the same
    pixels for the same camera image.
    """
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def decode_and_resize(data: bytes, out: np.ndarray) -> None:
    """Decodes an image into `out`, uint8 [h, w, 3], resizing only if sizes differ.

    Args:
        data: a JPEG or PNG image.
        out: contiguous memory to fill, for example one frame of a batch.

    Raises:
        ValueError: as `decode`.
    """
    if data[:2] != _JPEG:
        image = decode(data)
    else:
        try:
            image = simplejpeg.decode_jpeg(data, buffer=out)
            if image.shape == out.shape:
                return
            image = image.copy()  # smaller, and lies where it has to be enlarged to
        except ValueError:
            # Damaged, or larger than `out`: decoding into new memory tells which.
            image = simplejpeg.decode_jpeg(data)
    out[...] = resize(image, *out.shape[:2])
