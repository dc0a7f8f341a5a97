"""Where a chunk of actions would lead the hand, and where that is in a picture.

What an action does to the hand is fitted to the recorded episodes, so that actions in
any unit, relative or absolute, can be drawn.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_WORTH_DRAWING = 0.5  # least share of the motion that the fit must explain


class Motion(NamedTuple):
    """How the hand's position follows the first three dimensions of an action.

    Attributes:
        relative: whether actions add to the position.
        matrix: float64 `[4 3]`, from `[action, 1]` to metres in the robot base frame.
    """

    relative: bool
    matrix: np.ndarray


def fit_motion(
    position: np.ndarray,
    action: np.ndarray,
    first: np.ndarray,
    kinds: Sequence[str],
) -> Motion | None:
    """Fits how positions follow actions, by least squares.

    Args:
        position: float `[n 3]` of the hand at each step, metres, robot base frame.
        action: float `[n a]`, in the units of the data set.
        first: bool `[n]`, the first steps of episodes.
        kinds: of the dimensions of an action.

    Returns:
        None where the first three dimensions are not of one kind, or do not tell where
        the hand goes: joint angles, for example.
    """
    if len(kinds) < 3 or len({*kinds[:3]}) > 1 or kinds[0] == "gripper":
        return None
    relative = kinds[0] == "relative"
    follows = ~first[1:]
    inputs = np.pad(action[:-1, :3], ((0, 0), (0, 1)), constant_values=1.0)[follows]
    outputs = (position[1:] - position[:-1] if relative else position[1:])[follows]
    if len(outputs) < 4:
        return None
    matrix = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    left = np.square(outputs - inputs @ matrix).sum()
    total = np.square(outputs - (0 if relative else outputs.mean(0))).sum()
    explained = 1 - left / total if total > 0 else 0.0
    return Motion(relative, matrix) if explained >= _WORTH_DRAWING else None


def follow(motion: Motion, start: np.ndarray, chunk: np.ndarray) -> np.ndarray:
    """Positions `[c + 1, 3]` that begin at `start` `[3]` and follow `chunk` `[c a]`."""
    moves = np.pad(chunk[:, :3], ((0, 0), (0, 1)), constant_values=1.0) @ motion.matrix
    path = start + np.cumsum(moves, 0) if motion.relative else moves
    return np.concatenate([start[None], path])


def project(
    points: np.ndarray, intrinsics: np.ndarray, extrinsics: np.ndarray
) -> np.ndarray:
    """Pixels `[n 2]` (x, y) of points `[n 3]`; NaN for those behind the camera.

    Args:
        points: metres, robot base frame.
        intrinsics: `[3 3]`, in pixels.
        extrinsics: `[4 4]`, camera from robot base; z points into the scene.
    """
    camera = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    depth = np.where(camera[:, 2:] > 1e-6, camera[:, 2:], np.nan)
    return ((camera / depth) @ intrinsics.T)[:, :2]
