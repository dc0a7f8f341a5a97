"""Where to close the hand on an object, from above."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vla_jax.simulation.libero.geometry import Shape, narrowest

_OPENING = 0.072  # metres between the open fingers, less a margin
_FINGER = 0.02  # metres that the tips of the fingers lie below their middle
_REACH = 0.03  # metres below the top of an object at which a tall one is grasped
_RIM_DEPTH = 0.015  # metres below its rim at which a bowl is grasped
_DEEPER = 0.006  # metres that every further attempt reaches deeper
_ENOUGH_ROOM = 0.02  # metres between the hand and what stands around
_TIGHT = 0.008  # metres of room below which the hand is tilted
_TILTS = np.deg2rad([15, 30])
# Where the wrist may tilt to: away from the base, the last joints reach their limits.
_DIRECTIONS = np.array([[-1, 0, 0], [0, 1, 0], [0, -1, 0]], float)
_UP = np.array([0.0, 0.0, 1.0])
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


def plan_grasp(
    body: Shape, obstacles: Sequence[Shape], attempt: int, shift: np.ndarray
) -> Grasp:
    """Across the narrow side where the object fits into the hand, else at its rim.

    Args:
        body: what is grasped.
        obstacles: what the hand should not meet.
        attempt: how many grasps have failed; later ones reach for another place,
            and deeper.
        shift: from the place where it is taken to the one where it is put, metres, [3].
    """
    height = max(body.top - _REACH, body.bottom + _FINGER)
    yaw, width, middle = narrowest(body.slab(height - 0.012, height + 0.012))
    if width < _OPENING:
        lower = min(attempt * 0.01, max(height - body.bottom - _FINGER, 0))
        return Grasp(np.r_[middle, height - lower], turned(comfortable(yaw)))
    grasps = _rim_grasps(body, _RIM_DEPTH + attempt * _DEEPER)
    values = [_value(grasp, obstacles, shift) for grasp in grasps]
    if max(values) < _TIGHT:
        grasps = [
            Grasp(grasp.position, tilted(grasp.rotation, towards, tilt))
            for tilt in _TILTS
            for grasp in grasps
            for towards in _DIRECTIONS
        ]
        values = [_value(grasp, obstacles, shift) for grasp in grasps]
    order = np.argsort(-np.array(values), kind="stable")
    return grasps[order[min(attempt * 3, len(order) - 1)]]


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
    pointing = -np.sin(lean) * out - np.cos(lean) * _UP
    level = np.cross(out, _UP)
    rotations = [
        np.stack([x, np.cross(pointing, x), pointing], -1) for x in (level, -level)
    ]
    return max(rotations, key=lambda rotation: np.trace(rotation @ present.T))


def comfortable(yaw: float) -> float:
    """The same grasp, half a circle turned if need be, from -45 to 135 degrees.

    There the last joint of the arm stays away from its limits.
    """
    return (yaw + np.pi / 4) % np.pi - np.pi / 4


def tilted(rotation: np.ndarray, towards: np.ndarray, angle: float) -> np.ndarray:
    """A rotation of the hand, its wrist tilted `towards` a horizontal direction [3]."""
    axis = np.cross(_UP, towards)
    cross = np.cross(np.eye(3), axis)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn @ rotation


def room(points: np.ndarray, obstacles: Sequence[Shape]) -> float:
    """Metres from points `[m 3]` to what stands around, at most `_ENOUGH_ROOM`."""
    return min((o.distance(points) for o in obstacles), default=_ENOUGH_ROOM)


def hand_points(grasp: Grasp) -> np.ndarray:
    """Points on the open fingers, the palm and the wrist of a hand, `[m 3]`."""
    along, across, pointing = grasp.rotation.T
    offsets = [(s * 0.046, t, z) for s in (-1, 1) for t, z in _FINGER_POINTS]
    palm = np.linspace(-0.1, 0.1, 5)
    offsets += [(s, t, z) for s in palm for t in (-0.03, 0.03) for z in (0.08, 0.13)]
    hand = [s * across + t * along - z * pointing for s, t, z in offsets]
    # The wrist reaches from above the hand towards the base of the robot.
    wrist = [
        np.array([x, y, 0]) - z * pointing
        for x in (-0.13, -0.09, -0.05, 0.0, 0.04)
        for y in (-0.06, 0.0, 0.06)
        for z in (0.15, 0.2, 0.25)
    ]
    return grasp.position + np.array(hand + wrist)


def _rim_grasps(body: Shape, depth: float) -> list[Grasp]:
    """One finger inside a bowl and one outside, at places all around."""
    center = body.center[:2]
    rim = body.slab(body.top - 0.012, body.top) - center
    grasps = []
    for angle in np.deg2rad(np.arange(0, 360, 15)):
        out = np.array([np.cos(angle), np.sin(angle)])
        radius = float((rim @ out).max())
        # The fingers close along the radius.
        yaw = comfortable(angle - np.pi / 2)
        place = center + (radius - 0.009) * out
        height = max(body.top - depth, body.bottom + _FINGER / 2)
        grasps.append(Grasp(np.r_[place, height], turned(yaw)))
    return grasps


def _value(grasp: Grasp, obstacles: Sequence[Shape], shift: np.ndarray) -> float:
    """Room of the hand where it takes and where it puts, less the turn it needs."""
    points = hand_points(grasp)
    free = room(np.concatenate([points, points + shift]), obstacles)
    turn = np.arctan2(grasp.rotation[1, 0], grasp.rotation[0, 0])
    return min(free, _ENOUGH_ROOM) - 0.002 * abs(turn)
