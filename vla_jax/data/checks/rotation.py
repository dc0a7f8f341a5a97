"""Rotations between unit quaternions (x, y, z, w), as rotation vectors in radians."""

import numpy as np


def turned(before: np.ndarray, after: np.ndarray, *, frame: str) -> np.ndarray:
    """The rotation that leads from one orientation to the other.

    Args:
        before, after: `[n, 4]`.
        frame: "base" or "hand", the axes that the result is told in.

    Returns:
        Axis times angle, `[n, 3]`, the short way round.
    """
    inverse = before * (-1, -1, -1, 1)
    turn = _times(after, inverse) if frame == "base" else _times(inverse, after)
    turn = turn * np.where(turn[:, 3:] < 0, -1, 1)
    size = np.linalg.norm(turn[:, :3], axis=1, keepdims=True)
    angle = 2 * np.arctan2(size, turn[:, 3:])
    # Near no rotation, angle / size is 2.
    return turn[:, :3] * np.divide(
        angle, size, out=np.full_like(size, 2), where=size > 1e-9
    )


def into_hand(vector: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Vectors `[n, 3]`, told in the base's axes, in those of a hand so turned."""
    quaternion = np.concatenate([vector, np.zeros_like(vector[:, :1])], axis=1)
    inverse = orientation * (-1, -1, -1, 1)
    return _times(_times(inverse, quaternion), orientation)[:, :3]


def _times(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Hamilton's product, `[n, 4]`."""
    a, u = one[:, 3:], one[:, :3]
    b, v = two[:, 3:], two[:, :3]
    vector = a * v + b * u + np.cross(u, v)
    scalar = a * b - (u * v).sum(1, keepdims=True)
    return np.concatenate([vector, scalar], axis=1)
