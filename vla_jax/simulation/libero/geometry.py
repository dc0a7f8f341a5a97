"""Shapes in a MuJoCo scene, as a scripted expert needs them: extents, widths, rims.

Only collision boxes count; LIBERO's objects are made of nothing else.
"""

import dataclasses
import functools
import itertools

import numpy as np

_CORNERS = np.array(list(itertools.product((-1, 1), repeat=3)), float)
_ANGLES = np.deg2rad(np.arange(-90, 90, 3))


@dataclasses.dataclass(frozen=True)
class Shape:
    """The collision boxes of one body and of everything fixed to it.

    Attributes:
        centers: of the boxes in the world, metres, `[n 3]`.
        rotations: from the axes of each box to the world, `[n 3 3]`.
        halves: half the size of each box along its axes, metres, `[n 3]`.
    """

    centers: np.ndarray
    rotations: np.ndarray
    halves: np.ndarray

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """Corners in the world, metres, `[n 8 3]`."""
        local = _CORNERS * self.halves[:, None]
        return self.centers[:, None] + np.einsum("nij,nkj->nki", self.rotations, local)

    def distance(self, points: np.ndarray) -> float:
        """From the nearest of some points `[m 3]` to the nearest box; 0 inside."""
        away = points[:, None] - self.centers  # [m n 3]
        local = np.einsum("nji,mnj->mni", self.rotations, away)
        gap = np.maximum(np.abs(local) - self.halves, 0)
        return float(np.sqrt(np.square(gap).sum(-1)).min())

    @property
    def top(self) -> float:
        return float(self.boxes[..., 2].max())

    @property
    def bottom(self) -> float:
        return float(self.boxes[..., 2].min())

    @property
    def center(self) -> np.ndarray:
        """Middle of the extent along each axis, `[3]`."""
        corners = self.boxes.reshape(-1, 3)
        return (corners.min(0) + corners.max(0)) / 2

    def slab(self, low: float, high: float) -> np.ndarray:
        """Corners in the plane, `[m 2]`, of the boxes that reach between two heights.

        All boxes where none does.
        """
        z = self.boxes[..., 2]
        inside = (z.min(1) < high) & (z.max(1) > low)
        return (self.boxes[inside] if inside.any() else self.boxes)[..., :2].reshape(
            -1, 2
        )

    def surface(self, radius: float = 0.03) -> float:
        """Height on which an object comes to rest that is put on the center."""
        corners = self.boxes[..., :2] - self.center[:2]
        near = (corners.min(1) < radius).all(1) & (corners.max(1) > -radius).all(1)
        boxes = self.boxes[near] if near.any() else self.boxes
        return float(boxes[..., 2].max())


def shape(model, data, body: int) -> Shape:
    """The collision boxes of a body and its descendants.

    Raises:
        ValueError: it has none.
    """
    import mujoco

    members = {body}
    for child in range(body + 1, model.nbody):
        if model.body_parentid[child] in members:
            members.add(child)
    boxes = [
        geom
        for geom in range(model.ngeom)
        if model.geom_bodyid[geom] in members
        and model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX
        and model.geom_contype[geom]
        and model.geom_group[geom] == 0
    ]
    if not boxes:
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, body)
        raise ValueError(f"The body {name!r} has no collision boxes.")
    return Shape(
        data.geom_xpos[boxes].copy(),
        data.geom_xmat[boxes].reshape(-1, 3, 3).copy(),
        model.geom_size[boxes].copy(),
    )


def narrowest(points: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The direction in the plane across which points lie closest together.

    Among widths within 2 mm of the smallest, the direction nearest to the y axis is
    taken: the one across which the hand closes without turning.

    Args:
        points: `[m 2]`.

    Returns:
        The hand's turn in radians from -pi/2 to pi/2, the width in metres, and the
        middle of the points `[2]`.
    """
    across = np.stack([-np.sin(_ANGLES), np.cos(_ANGLES)], -1)  # [k 2]
    projected = points @ across.T
    widths = projected.max(0) - projected.min(0)
    good = np.flatnonzero(widths < widths.min() + 0.002)
    best = good[np.argmin(np.abs(_ANGLES[good]))]
    along = np.array([np.cos(_ANGLES[best]), np.sin(_ANGLES[best])])
    low, high = projected[:, best].min(), projected[:, best].max()
    lengthwise = points @ along
    middle = across[best] * (low + high) / 2
    middle = middle + along * (lengthwise.min() + lengthwise.max()) / 2
    return float(_ANGLES[best]), float(widths[best]), middle
