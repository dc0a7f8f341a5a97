"""Where to close the hand on an object, from above."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vla_jax.simulation.libero.geometry import Shape, narrowest

_OPENING = 0.072  # metres between the open fingers, less a margin
_FINGER = 0.02  # metres that the tips of the fingers lie below their middle
_REACH = 0.03  # metres below the top of an object at which a tall one is grasped
_RIM_DEPTH = 0.015  # metres below its rim at which a bowl is grasped
_ENOUGH_ROOM = 0.02  # metres between the hand and what stands around
# Along the palm and upward from the hand's center, metres.
_FINGER_POINTS = [(t, z) for t in (-0.01, 0.01) for z in (-0.018, 0.0, 0.03)]
# The hand as it points straight down at the start: y and z turned around.
_DOWN = np.diag([1.0, -1.0, -1.0])


@dataclasses.dataclass(frozen=True)
class Grasp:
    """A pose of the hand.

    Attributes:
        position: of the point between the fingers, metres, [3].
        rotation: from the axes of the hand to the world, [3, 3]. It points along its z
            and closes its fingers along its y.
    """

    position: np.ndarray
    rotation: np.ndarray


def plan_grasp(body: Shape, obstacles: Sequence[Shape], attempt: int) -> Grasp:
    """Across the narrow side where the object fits into the hand, else at its rim.

    Args:
        body: what is grasped.
        obstacles: what the fingers should not meet.
        attempt: how many grasps have failed; later ones reach for another place.
    """
    height = max(body.top - _REACH, body.bottom + _FINGER)
    yaw, width, middle = narrowest(body.slab(height - 0.012, height + 0.012))
    if width < _OPENING:
        lower = min(attempt * 0.01, max(height - body.bottom - _FINGER, 0))
        return Grasp(np.r_[middle, height - lower], turned(comfortable(yaw)))
    return _rim_grasp(body, obstacles, attempt)


def turned(yaw: float, rotation: np.ndarray = _DOWN) -> np.ndarray:
    """A rotation of the hand, pointing straight down unless said, turned by `yaw`."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ rotation


def leaning(out: np.ndarray, lean: float, present: np.ndarray) -> np.ndarray:
    """The hand leaning against `out`, its fingers one above the other.

    Args:
        out: horizontal unit vector away from what the hand faces, [3].
        lean: from straight down, radians.
        present: its rotation now; of the two ways to turn, the nearer is taken.
    """
    up = np.array([0.0, 0.0, 1.0])
    pointing = -np.sin(lean) * out - np.cos(lean) * up
    level = np.cross(out, up)
    rotations = [
        np.stack([x, np.cross(pointing, x), pointing], -1) for x in (level, -level)
    ]
    return max(rotations, key=lambda rotation: np.trace(rotation @ present.T))


def comfortable(yaw: float) -> float:
    """The same grasp, half a circle turned if need be, from -45 to 135 degrees.

    There the last joint of the arm stays away from its limits.
    """
    return (yaw + np.pi / 4) % np.pi - np.pi / 4


def _rim_grasp(body: Shape, obstacles: Sequence[Shape], attempt: int) -> Grasp:
    """One finger inside a bowl and one outside, where there is most room."""
    center = body.center[:2]
    rim = body.slab(body.top - 0.012, body.top) - center
    options = []
    for angle in np.deg2rad(np.arange(0, 360, 15)):
        out = np.array([np.cos(angle), np.sin(angle)])
        radius = float((rim @ out).max())
        # The fingers close along the radius.
        yaw = comfortable(angle - np.pi / 2)
        place = center + (radius - 0.009) * out
        grasp = Grasp(np.r_[place, body.top - _RIM_DEPTH], turned(yaw))
        room = min(
            (obstacle.distance(_hand_points(grasp)) for obstacle in obstacles),
            default=np.inf,
        )
        options.append((min(room, _ENOUGH_ROOM) - 0.002 * abs(yaw), grasp))
    options.sort(key=lambda option: -option[0])
    return options[min(attempt * 3, len(options) - 1)][1]


def _hand_points(grasp: Grasp) -> np.ndarray:
    """Points on the open fingers and the palm of a hand about to close, `[m 3]`."""
    along, across, _ = grasp.rotation.T
    offsets = [(s * 0.046, t, z) for s in (-1, 1) for t, z in _FINGER_POINTS]
    palm = np.linspace(-0.1, 0.1, 5)
    offsets += [(s, t, 0.08) for s in palm for t in (-0.03, 0.03)]
    return grasp.position + np.array(
        [s * across + t * along + [0, 0, z] for s, t, z in offsets]
    )
