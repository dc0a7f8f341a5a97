"""Decoding: the right pixels in the given memory, and broken images refused."""

import io
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vla_jax.data.image import decode, decode_and_resize, decode_depth, resize


def picture(height=16, width=24):
    rows, columns = np.mgrid[:height, :width]
    channels = [rows * 8, columns * 8, np.full_like(rows, 100)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def jpeg(image):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_jpeg_has_the_pixels_of_pillow():
    data = jpeg(picture())
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(decode(data), expected)
    out = np.zeros((16, 24, 3), np.uint8)
    decode_and_resize(data, out)
    np.testing.assert_array_equal(out, expected)


def test_png_is_exact():
    out = np.zeros((16, 24, 3), np.uint8)
    decode_and_resize(png(picture()), out)
    np.testing.assert_array_equal(out, picture())


def test_gray_is_repeated_and_alpha_is_dropped():
    gray = picture()[..., 0]
    np.testing.assert_array_equal(decode(png(gray)), np.repeat(gray[..., None], 3, 2))
    alpha = np.dstack([picture(), np.full((16, 24), 7, np.uint8)])
    np.testing.assert_array_equal(decode(png(alpha)), picture())
    data = simplejpeg.encode_jpeg(gray[..., None].copy(), colorspace="GRAY")
    assert decode(data).shape == (16, 24, 3)


@pytest.mark.parametrize("size", [(8, 12), (32, 48), (12, 8), (24, 16), (17, 24)])
@pytest.mark.parametrize("encode", [jpeg, png])
def test_other_sizes_are_resized_as_serving_resizes(size, encode):
    data = encode(picture())
    out = np.full((*size, 3), 255, np.uint8)
    decode_and_resize(data, out)
    np.testing.assert_array_equal(out, resize(decode(data), *size))


def test_resize_averages_what_a_smaller_pixel_covers():
    checkers = np.indices((16, 16)).sum(0) % 2 * np.uint8(200)
    image = np.repeat(checkers.astype(np.uint8)[..., None], 3, 2)
    small = resize(image, 2, 2)
    assert np.all(np.abs(small.astype(int) - 100) <= 8)


def test_resize_to_the_same_size_changes_nothing():
    np.testing.assert_array_equal(resize(picture(), 16, 24), picture())


def test_decoding_fills_one_frame_of_a_batch_and_nothing_else():
    batch = np.full((3, 16, 24, 3), 9, np.uint8)
    decode_and_resize(jpeg(picture()), batch[1])
    assert np.all(batch[0] == 9) and np.all(batch[2] == 9)
    np.testing.assert_array_equal(batch[1], decode(jpeg(picture())))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (jpeg(picture())[:-40], "Premature end"),
        (png(picture())[:-60], "damaged PNG"),
        (b"GIF89a nonsense", "47 49 46.*neither JPEG nor PNG"),
        (b"", "0 bytes"),
        (png(picture()[..., 0].astype(np.uint16)), "8 bits per channel"),
    ],
)
def test_broken_images_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        decode_and_resize(data, np.zeros((16, 24, 3), np.uint8))


IMAGE = {"dtype": "uint16", "shape": [2, 2, 1], "encoding": "png"}
MILLIMETRES = np.array([[0, 1000], [2500, 65535]], np.uint16)


@pytest.mark.parametrize(
    ("data", "feature", "scale", "expected"),
    [
        (png(MILLIMETRES), IMAGE, None, [[0, 1], [2.5, 65.535]]),
        (png(MILLIMETRES), IMAGE, 0.01, [[0, 10], [25, 655.35]]),
        (png(np.array([[1, 2], [3, 255]], np.uint8)), IMAGE, 1.0, [[1, 2], [3, 255]]),
        (
            zlib.compress(np.array([0.5, 1, 1.5, 2], np.float32).tobytes()),
            {"dtype": "float32", "shape": [2, 2, 1], "encoding": "zlib"},
            None,
            [[0.5, 1], [1.5, 2]],
        ),
        (
            MILLIMETRES.tobytes(),
            {"dtype": "uint16", "shape": [2, 2], "encoding": "bytes"},
            None,
            [[0, 1], [2.5, 65.535]],
        ),
    ],
)
def test_depth_is_in_metres(data, feature, scale, expected):
    out = np.full((2, 2), -1, np.float32)
    decode_depth(data, feature, out, scale)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_depth_takes_the_nearest_pixel_and_mixes_none():
    data = png((1000 * np.arange(12).reshape(2, 6)).astype(np.uint16))
    out = np.zeros((4, 2), np.float32)
    decode_depth(data, IMAGE, out, None)
    np.testing.assert_array_equal(out, [[1, 4], [1, 4], [7, 10], [7, 10]])


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        (png(MILLIMETRES)[:-30], "png", "damaged PNG"),
        (jpeg(picture()), "jpeg", "ff d8.* are no PNG"),
        (png(picture()), "png", "PNG of mode RGB is no depth image"),
        (b"", "", "0 bytes"),
        (b"nothing", "zlib", "damaged tensor"),
        (b"12", "bytes", "reshape"),
    ],
)
def test_broken_depth_is_refused(data, encoding, message):
    with pytest.raises(ValueError, match=message):
        feature = {**IMAGE, "encoding": encoding}
        decode_depth(data, feature, np.zeros((2, 2), np.float32), None)
