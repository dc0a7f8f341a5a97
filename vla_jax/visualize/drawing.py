"""Points and maps drawn onto the pictures that they were found in."""

import colorsys
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from vla_jax.simulation.video import add_caption
from vla_jax.visualize.inspection import Inspection

_SIDE = 320  # least height of a panel, in pixels
_TRAIL = 50  # past steps that the trail of a point shows
_AHEAD = 10  # steps ahead of which the caption tells the error


def draw_points(found: Inspection) -> Iterator[np.ndarray]:
    """Frames of a video, uint8 [h w 3]: for each camera two panels side by side.

    On the left the points as discs, each with the way that it is foreseen to go; on the
    right where it has been, its drift, over the last steps.

    Raises:
        ValueError: a policy with maps but without points.
    """
    if not found.points:
        raise ValueError("This policy has attention maps but no points to draw.")
    for t in range(len(next(iter(found.points.values())))):
        rows = []
        for camera, points in found.points.items():
            picture = _enlarge(found.images[camera][t])
            colors = _colors(points.shape[1])
            future = found.future_points[camera][t]
            left, right = Image.fromarray(picture), Image.fromarray(picture // 2)
            for k, color in enumerate(colors):
                _line(left, future[:, k], color)
                _disc(left, points[t, k], color, str(k + 1))
                _line(right, points[max(t - _TRAIL, 0) : t + 1, k], color)
                _disc(right, points[t, k], color, "")
            now = add_caption(np.asarray(left), _summary(found, camera, t))
            past = add_caption(np.asarray(right), f"the last {min(t, _TRAIL)} steps")
            rows.append(np.concatenate([now, past], 1))
        yield stack_rows(rows)


def draw_maps(found: Inspection) -> Iterator[np.ndarray]:
    """Frames of a video, uint8 [h w 3]: every map as heat over its picture."""
    length = len(next(iter(found.maps.values())))
    for t in range(length):
        rows = []
        for camera, maps in found.maps.items():
            picture = found.images[camera][t]
            maps = maps[t] if maps.ndim == 4 else maps[t][None]
            tiles = [overlay(picture, one) for one in maps]
            columns = min(3, len(tiles))
            blank = [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
            tiles += blank
            grid = [
                np.concatenate(tiles[i : i + columns], 1)
                for i in range(0, len(tiles), columns)
            ]
            text = f"{camera}: {len(maps)} maps, step {t}"
            rows.append(add_caption(np.concatenate(grid), text))
        yield stack_rows(rows)


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map over a picture, uint8 [h w 3]: dark where it is 0, yellow at its maximum.

    Args:
        picture: uint8 [h w 3].
        heat: float [h' w'], not negative.
    """
    height, width = picture.shape[:2]
    scaled = Image.fromarray((heat / max(heat.max(), 1e-12)).astype(np.float32))
    scaled = np.asarray(scaled.resize((width, height), Image.Resampling.BILINEAR))
    scaled = np.clip(scaled, 0, 1)[..., None]
    gray = picture.astype(np.float32).mean(-1, keepdims=True)
    ramp = np.concatenate([scaled, scaled**2, 0.2 * scaled**4], -1) * 255
    mixed = 0.5 * gray + (0.3 + 0.7 * scaled) * ramp
    return np.clip(mixed, 0, 255).astype(np.uint8)


def to_pixels(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Points (x, y) in -1..1 as pixel coordinates of a picture of (height, width)."""
    height, width = size
    return (points + 1) / 2 * np.array([width - 1, height - 1])


def stack_rows(rows: list[np.ndarray]) -> np.ndarray:
    """Pictures one below the other, the narrower ones filled up with black."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    )


def _summary(found: Inspection, camera: str, t: int) -> str:
    """What the pictures cannot show: the last motion, and the error ahead."""
    points, size = found.points[camera], found.images[camera].shape[1:3]
    scale = (np.array(size[::-1]) - 1) / 2  # pixels of the recorded picture
    text = f"{camera}, step {t}"
    if t:
        moved = np.linalg.norm((points[t] - points[t - 1]) * scale, axis=-1).mean()
        text += f" | moved {moved:.1f} px"
    future = found.future_points[camera]
    if t >= _AHEAD and future.shape[1] > _AHEAD:
        error = (future[t - _AHEAD, _AHEAD] - points[t]) * scale
        off = np.linalg.norm(error, axis=-1).mean()
        text += f" | foreseen {_AHEAD} steps ago: off by {off:.1f} px"
    return text


def _enlarge(picture: np.ndarray) -> np.ndarray:
    factor = -(-_SIDE // picture.shape[0])
    if factor <= 1:
        return picture
    size = (picture.shape[1] * factor, picture.shape[0] * factor)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def _line(picture: Image.Image, points: np.ndarray, color: tuple[int, int, int]):
    path = to_pixels(points, picture.size[::-1])
    flat = [tuple(point) for point in path.tolist()]
    if len(flat) > 1:
        ImageDraw.Draw(picture).line(flat, fill=color, width=2)


def _disc(picture: Image.Image, point: np.ndarray, color, label: str) -> None:
    x, y = to_pixels(point, picture.size[::-1]).tolist()
    radius = max(3, picture.size[1] // 60)
    draw = ImageDraw.Draw(picture)
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(box, fill=color, outline=(0, 0, 0))
    draw.text((x + radius + 1, y - 2 * radius), label, fill=(255, 255, 255))


def _colors(count: int) -> list[tuple[int, int, int]]:
    hues = [colorsys.hsv_to_rgb(k / count, 1.0, 1.0) for k in range(count)]
    return [tuple(int(255 * channel) for channel in hue) for hue in hues]
