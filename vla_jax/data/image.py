"""Encoded images to pixels, straight into the memory of the batch.

JPEG is decoded by libjpeg-turbo's accurate integer method, which gives the same pixels
as PIL and OpenCV, and without the interpreter lock, so that threads decode in parallel.
"""

import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from vla_jax.data.resize import resize, resize_depth
from vla_jax.data.tfrecord import decode_varints

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_GRAY = ("L", "I", "I;16", "I;16B")  # how pillow calls gray PNGs of 8 and 16 bits


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


def decode_depth(
    data: bytes, feature: Mapping[str, Any], out: np.ndarray, scale: float | None
) -> None:
    """Decodes a depth image into `out`, resizing to the nearest pixel, never between.

    Args:
        data: a gray PNG image of 8 or 16 bits, one of four channels that are the bytes
            of float32 numbers, a tensor that tfds packed, or its numbers as they lie in
            a `tf.train.Example`: float32, or integers in base 128.
        feature: `dtype`, `shape` and `encoding` as the data set states them.
        out: float32 [h, w] to fill, in metres.
        scale: metres per unit; None is 0.001 for integers and 1 for other numbers.

    Raises:
        ValueError: bytes that are no such image, are cut short or are damaged.
    """
    if feature["encoding"] in ("zlib", "bytes"):
        depth = _unpack(data, feature)
    elif feature["encoding"] == "none":  # plain numbers
        depth = _numbers(data, feature)
    else:
        depth = _decode_gray(data, np.dtype(feature["dtype"]))
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[..., 0]
    if depth.ndim != 2:
        raise ValueError(f"depth has the shape {depth.shape}; expected (h, w)")
    if scale is None:
        scale = 0.001 if np.issubdtype(depth.dtype, np.integer) else 1.0
    np.multiply(resize_depth(depth, *out.shape), scale, out=out, casting="unsafe")


def _unpack(data: bytes, feature: Mapping[str, Any]) -> np.ndarray:
    try:
        data = zlib.decompress(data) if feature["encoding"] == "zlib" else data
    except zlib.error as error:
        raise ValueError(f"damaged tensor: {error}") from error
    return np.frombuffer(data, feature["dtype"]).reshape(feature["shape"])


def _numbers(data: bytes, feature: Mapping[str, Any]) -> np.ndarray:
    whole = not np.issubdtype(np.dtype(feature["dtype"]), np.floating)
    try:
        if whole:
            numbers = decode_varints(np.frombuffer(data, np.uint8))
        else:
            numbers = np.frombuffer(data, "<f4")
        return numbers.reshape(feature["shape"])
    except (ValueError, IndexError) as error:
        raise ValueError(f"damaged tensor: {error}") from error


def _decode_gray(data: bytes, dtype: np.dtype) -> np.ndarray:
    if data[: len(_PNG)] != _PNG:
        raise ValueError(
            f"{len(data)} bytes that begin with {bytes(data[:8]).hex(' ')} are no PNG"
        )
    try:
        with Image.open(io.BytesIO(data)) as image:
            if dtype == np.float32 and image.mode == "RGBA":
                return np.asarray(image).view("<f4")
            if image.mode not in _GRAY:
                raise ValueError(f"PNG of mode {image.mode} is no depth image")
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"damaged PNG: {error}") from error
