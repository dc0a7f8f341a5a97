"""Where the end effector is in a picture, by the camera matrices of the data set."""

import numpy as np

from vla_jax.data.index import Index


def can_project(index: Index, camera: str) -> bool:
    """Whether there are poses, and both matrices of the camera."""
    matrices = index.camera_matrices.get(camera, {})
    return index.pose is not None and {"intrinsics", "extrinsics"} <= set(matrices)


def project(
    index: Index, camera: str, points: np.ndarray, at: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Projects the end effector: `K (R p + t)`, divided by its depth.

    Args:
        index: of the data set.
        camera: one of which `can_project` is true.
        points: int `[n]`, the steps whose end effector is projected.
        at: int `[n]`, the steps whose camera takes the picture; `points` if None.

    Returns:
        Pixels `[n, 2]`, across and down from the picture's corner, and whether the
        point is in front of the camera, bool `[n]`.
    """
    at = points if at is None else at
    matrices = index.camera_matrices[camera]
    position = np.asarray(index.pose[points][:, :3], np.float64)
    extrinsics = np.asarray(matrices["extrinsics"][at], np.float64)
    intrinsics = np.asarray(matrices["intrinsics"][at], np.float64)
    seen = np.einsum("nij,nj->ni", extrinsics[:, :3, :3], position)
    seen = np.einsum("nij,nj->ni", intrinsics, seen + extrinsics[:, :3, 3])
    in_front = seen[:, 2] > 1e-6
    depth = np.where(in_front, seen[:, 2], 1)
    return seen[:, :2] / depth[:, None], in_front
