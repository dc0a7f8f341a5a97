"""How well attention points hold on to things: drift, jitter, locked share, foresight.

Points are normalized image coordinates, x before y, from -1 (center of the first pixel)
to 1 (center of the last). Distances are pixels of a picture of 480 rows and 640 columns
whatever size the policy sees, so that numbers of different sizes compare. MSACT (Cai et
al., 2026) reports drift without defining it; the definitions are ours.
"""

from collections.abc import Mapping, Sequence

import numpy as np

REFERENCE_SIZE = (480, 640)  # rows and columns that pixels refer to
LOCKED_DRIFT = 40.0  # pixels; a point that drifts less counts as locked to an object
STATIC_STEP = 2e-4  # metres per step; an object that moves less counts as static
OFFSETS = (10, 50, 99)  # steps ahead at which predicted points are judged


def to_pixels(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Normalized points [..., 2] to reference pixels; 0, 0 is a corner.

    Args:
        points: in [-1, 1], x before y.
        size: rows and columns of the picture that the policy saw.
    """
    columns_rows = np.array(size[::-1], float)
    place = (points + 1) / 2 * (columns_rows - 1) + 0.5
    return place * (np.array(REFERENCE_SIZE[::-1]) / columns_rows)


def rescale(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels [..., 2] of a picture of `size` (rows, columns) to reference pixels."""
    return pixels * (np.array(REFERENCE_SIZE[::-1]) / np.array(size[::-1]))


def drift(
    points: np.ndarray, objects: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spread of each point around the object that it follows best.

    `o = point - object` over an episode; drift is the root of the mean square distance
    of `o` from its mean, and the object is the one for which that is least. So a point
    may sit beside its object, as long as it stays there.

    Args:
        points: [t, k, 2] in pixels.
        objects: projected centers [t, o, 2] in the pixels of the same camera.
        mask: bool [t], True for steps whose points are known.

    Returns:
        Drift [k] in pixels, and the number of the object [k]. NaN and -1 where no step
        counts: those where an object has no projection are left out.
    """
    offset = points[:, :, None] - objects[:, None]  # [t k o 2]
    real = mask[:, None, None] & np.isfinite(offset).all(-1)
    count = real.sum(0)
    weight = real[..., None] / np.maximum(count, 1)[..., None]
    offset = np.where(real[..., None], offset, 0.0)
    mean = (weight * offset).sum(0)
    square = (weight * np.square(offset - mean)).sum((0, -1))
    spread = np.where(count > 0, np.sqrt(square), np.inf)  # [k o]
    owner = spread.argmin(1)
    least = spread[np.arange(len(spread)), owner]
    known = np.isfinite(least)
    return np.where(known, least, np.nan), np.where(known, owner, -1)


def jitter(points: np.ndarray, static: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean step [k] of each point in pixels while nothing that matters moves.

    Args:
        points: [t, k, 2] in pixels.
        static: bool [t], True where no object has moved since the step before.
        mask: bool [t], True for steps whose points are known.

    Returns:
        NaN where no two neighboring steps count.
    """
    real = static[1:] & mask[1:] & mask[:-1]
    if not real.any():
        return np.full(points.shape[1], np.nan)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    return steps[real].mean(0)


def find_static(positions: np.ndarray, tolerance: float = STATIC_STEP) -> np.ndarray:
    """Steps bool [t] at which no object has moved since the step before.

    Args:
        positions: [t, o, 3] in metres.
        tolerance: metres per step that still count as rest. The first step counts.
    """
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
    return np.append([True], (steps < tolerance).all(1))


def locked_fraction(drifts: np.ndarray, limit: float = LOCKED_DRIFT) -> float:
    """Share of the points whose drift [k] is known and below `limit` pixels."""
    return float((drifts < limit).mean())


def prediction_error(
    points: np.ndarray,
    future: np.ndarray,
    mask: np.ndarray,
    offsets: Sequence[int] = OFFSETS,
) -> dict[int, float]:
    """How far points were from where they had been expected, by steps ahead.

    The mean over steps, points and both coordinates of `|future[t, j] - points[t + j]|`
    in pixels.

    Args:
        points: [t, k, 2] in pixels, extracted from the frames.
        future: [t, c, k, 2] in pixels; `future[t, j]` was predicted at t for t + j.
        mask: bool [t], True for steps whose points are known.
        offsets: steps ahead; those of at least c are left out.

    Returns:
        Offset to error, for the offsets that an episode of this length can judge.
    """
    errors = {}
    for offset in offsets:
        if not 0 <= offset < min(future.shape[1], len(points)):
            continue
        stop = len(points) - offset
        real = mask[:stop] & mask[offset:]
        if real.any():
            gap = np.abs(future[:stop, offset] - points[offset:])
            errors[offset] = float(gap[real].mean())
    return errors


def measure(
    points: np.ndarray,
    future: np.ndarray | None,
    mask: np.ndarray,
    *,
    cameras: Sequence[str],
    objects: Mapping[str, np.ndarray],
    positions: np.ndarray | None,
) -> dict[str, float]:
    """All metrics of one episode.

    Args:
        points, future, mask: as above, future None for a policy that predicts none.
        cameras: of each of the k points.
        objects: camera to [t, o, 2], projected centers in pixels; may be empty.
        positions: [t, o, 3] of the objects in metres; None where they are unknown.

    Returns:
        `locked` (share of all points), `drift` (pixels, mean over the locked points;
        absent when none is), `jitter` (mean over points) and `prediction_error/<steps>`
        as far as they can be told.
    """
    found = {}
    drifts = np.full(points.shape[1], np.nan)
    for camera, centers in objects.items():
        mine = np.array([name == camera for name in cameras])
        if mine.any():
            drifts[mine], _ = drift(points[:, mine], centers, mask)
    if objects:
        found["locked"] = locked_fraction(drifts)
        locked = drifts[drifts < LOCKED_DRIFT]
        if len(locked):
            found["drift"] = float(locked.mean())
    if positions is not None:
        shakes = jitter(points, find_static(positions), mask)
        if np.isfinite(shakes).all():
            found["jitter"] = float(shakes.mean())
    if future is not None:
        for offset, error in prediction_error(points, future, mask).items():
            found[f"prediction_error/{offset}"] = error
    return found


def count_stages(reached: Sequence[int], num_stages: int) -> list[int]:
    """Episodes that reached stage 1, 2, ... at any time, from the highest of each."""
    return [sum(r >= stage for r in reached) for stage in range(1, num_stages + 1)]
