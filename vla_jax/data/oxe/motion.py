"""Motions and rotations as columns of standard actions."""

import numpy as np


def reached_motion(pose: np.ndarray, ahead: int = 1, angles: slice = slice(0, 0)):
    """How far the robot moves in the next `ahead` steps: an action it has executed.

    Args:
        pose: `[T, d]`.
        ahead: steps between a pose and the one it moves to.
        angles: columns in radians, whose differences are taken the short way round.

    Returns:
        float32 `[T, d]`; zero for the last `ahead` steps, whose goal is not known.
    """
    motion = np.zeros(pose.shape, np.float32)
    if len(pose) > ahead:
        motion[:-ahead] = pose[ahead:] - pose[:-ahead]
    turns = np.round(motion[:, angles] / (2 * np.pi))
    motion[:, angles] -= (2 * np.pi * turns).astype(np.float32)
    return motion


def goal_known(num_steps: int, ahead: int = 1, every: int = 1, first: int = 0):
    """Steps for which `reached_motion` knows the goal: `first`, `first + every`, ...

    An episode too short for any keeps its first step, with a motion of zero.
    """
    steps = np.arange(first, num_steps - ahead, every)
    return steps if len(steps) else np.arange(1)


def quaternion_to_euler(quaternion: np.ndarray) -> np.ndarray:
    """Quaternions xyzw `[T, 4]`, of any length, to roll, pitch, yaw `[T, 3]`, radians.

    The rotation is roll about x, then pitch about y, then yaw about z, all fixed axes.
    """
    norm = np.linalg.norm(quaternion, axis=1, keepdims=True)
    x, y, z, w = (quaternion / np.maximum(norm, 1e-12)).astype(np.float64).T
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return np.stack([roll, pitch, yaw], axis=1).astype(np.float32)


def pose_matrix(pose: np.ndarray) -> np.ndarray:
    """Positions and unit quaternions xyz, wxyz `[T, 7]` to matrices `[T, 4, 4]`."""
    x, y, z, w, i, j, k = pose.astype(np.float64).T
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = [
        [1 - 2 * (j * j + k * k), 2 * (i * j - k * w), 2 * (i * k + j * w), x],
        [2 * (i * j + k * w), 1 - 2 * (i * i + k * k), 2 * (j * k - i * w), y],
        [2 * (i * k - j * w), 2 * (j * k + i * w), 1 - 2 * (i * i + j * j), z],
        [zero, zero, zero, one],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def inverse_pose(pose: np.ndarray) -> np.ndarray:
    """The inverse `[4, 4]` of a rotation and a translation, its last row exact."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


def rotated(vectors: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Vectors `[T, 2]` of the world in the frames of robots that face `yaw [T]`."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    x, y = vectors.T
    return np.stack([cosine * x + sine * y, cosine * y - sine * x], axis=1)


def columns(*parts) -> np.ndarray:
    """Joins `[T]` and `[T, d]` arrays to one float32 `[T, sum of d]`."""
    arrays = [np.asarray(part, np.float32) for part in parts]
    return np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1)


def zeros(num_steps: int, width: int = 1) -> np.ndarray:
    """Columns that a robot lacks: the proprio of a data set without any, say."""
    return np.zeros((num_steps, width), np.float32)
