"""Scripted expert for LIBERO: reads the goal of a task and moves the hand by waypoints.

The script sees the simulator's true poses, which no policy does. It is a generator that
is asked for one action per step and measures the hand before each, so that it corrects
what noise on the executed action has done.
"""

from collections.abc import Iterator

import numpy as np

from vla_jax.simulation.environment import NoSkill
from vla_jax.simulation.libero.grasp import (
    Grasp,
    comfortable,
    leaning,
    plan_grasp,
    room,
    tilted,
    turned,
)
from vla_jax.simulation.libero.scene import Scene

# What must be open or on comes first, what must be shut in the end comes last.
ORDER = ("turnon", "open", "on", "in", "turnoff", "close")

_STEP = 0.05  # metres that an action of 1 asks for
_TURN = 0.5  # radians
_CLEARANCE = 0.12  # metres above what is approached or carried over
_OPEN, _CLOSED = 1.0, 0.0
_OVER = 0.06  # metres over the place where it is put that an object is carried
_ATTEMPTS = 3  # grasps of one object before it is given up
_LIFTED = 0.05  # metres that a grasped object rises with the hand
_LEAN = np.deg2rad(80)  # of the hand towards a drawer, from the vertical
_PUSH_TILT = np.deg2rad(30)
_SHARED = 0.65  # of half a region, where the outer of several objects go
_ROOM = 0.03  # metres between what is put down and what stands around
_DRAWER = 0.2  # metres that a drawer is pulled; its stop comes before
_GAP = 0.13  # metres that it is pulled for something to be put in
_DRAWER_LENGTH = 0.2  # metres inside, and what of the front hides of it
_KNOB = 1.0  # radians that a knob is turned
_PATIENCE = 8  # steps that a hand may stand still before it gives up a movement
_STILL = 0.002  # metres or radians
_UP = np.array([0.0, 0.0, 1.0])


class Expert:
    """Plays one episode of one task, from its present state on."""

    def __init__(self, scene: Scene):
        """Plans in `scene`, which tells the present state whenever it is asked.

        Raises:
            NoSkill: the goal has a part that no skill reaches.
        """
        self._scene = scene
        self._gripper = _OPEN
        self._home = self._scene.hand + 0.05 * _UP
        for kind, *names in self._scene.goals:
            if not _reachable(self._scene, kind, names):
                raise NoSkill(f"No skill reaches the goal {[kind, *names]}.")
        self._script = self._play()

    def action(self) -> np.ndarray:
        """The standard action [7] of this step; holds still when the script is over."""
        move = next(self._script, np.zeros(6))
        return np.r_[move, self._gripper].astype(np.float32)

    def _play(self) -> Iterator[np.ndarray]:
        """Every part of the goal in turn, and again those that are not fulfilled."""
        goals = sorted(self._scene.goals, key=lambda goal: ORDER.index(goal[0]))
        while not self._scene.fulfilled(goals):
            for goal in goals:
                if not self._scene.fulfilled([goal]):
                    yield from self._pursue(*goal)
        yield from self._move(self._home, turned(0.0), tolerance=0.05)

    def _pursue(self, kind: str, *names: str) -> Iterator[np.ndarray]:
        drawer = self._scene.drawer(names[-1])
        if kind in ("turnon", "turnoff"):
            yield from self._turn_knob(names[0], on=kind == "turnon")
        elif kind == "open":
            yield from self._pull(drawer, _DRAWER)
        elif kind == "close":
            yield from self._push(drawer)
        else:
            if drawer is not None and self._scene.opening(drawer) < 0.8 * _GAP:
                yield from self._pull(drawer, _GAP)
            yield from self._pick_and_place(*names)

    # Skills. Each yields moves [6]: displacement and turn, -1 to 1.

    def _pick_and_place(self, name: str, target: str) -> Iterator[np.ndarray]:
        scene = self._scene
        for attempt in range(_ATTEMPTS):
            body, obstacles = scene.shape(name), scene.obstacles(name)
            goal, height = self._resting_place(name, target)
            shift = np.r_[goal[:2] - body.center[:2], height - body.bottom]
            grasp = plan_grasp(body, obstacles, attempt, shift)
            yield from self._pick(grasp)
            # Not its bottom: a plate hangs from its rim.
            if scene.shape(name).center[2] > body.center[2] + _LIFTED:
                yield from self._place(name, target, grasp.rotation)
                return
            yield from self._release(-grasp.rotation[:, 2])

    def _pick(self, grasp: Grasp) -> Iterator[np.ndarray]:
        back = -grasp.rotation[:, 2]
        above = grasp.position + _CLEARANCE * back
        yield from self._move(above, grasp.rotation, tolerance=0.015)
        yield from self._move(grasp.position, grasp.rotation, tolerance=0.004, steps=50)
        yield from self._close(grasp)
        yield from self._move(above + 0.08 * back, grasp.rotation, tolerance=0.03)

    def _place(
        self, name: str, target: str, rotation: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Carries what is in the hand over the target, lowers it and lets go."""
        scene = self._scene
        goal, height = self._resting_place(name, target)
        offset = scene.shape(name).center - scene.hand
        below = scene.shape(name).bottom - scene.hand[2]
        high = max(height - below + _OVER, scene.hand[2])
        lifted = np.r_[scene.hand[:2], high]
        yield from self._move(lifted, rotation, tolerance=0.03)
        hand = np.r_[(goal - offset)[:2], high]
        yield from self._move(hand, rotation, tolerance=0.015, steps=100)
        # What swings in the hand, or turned in it, is corrected before it goes down.
        hand[:2] = (goal - (scene.shape(name).center - scene.hand))[:2]
        yield from self._move(hand, rotation, tolerance=0.006, steps=25)
        hand[2] = height - (scene.shape(name).bottom - scene.hand[2])
        yield from self._move(hand, rotation, tolerance=0.008, steps=40)
        yield from self._release(-rotation[:, 2])

    def _resting_place(self, name: str, target: str) -> tuple[np.ndarray, float]:
        """Where the center of an object shall go, and at what height its bottom."""
        scene = self._scene
        if scene.is_object(target):
            body = scene.shape(target)
            return body.center, body.surface() + 0.015
        owner = scene.owner(target)
        if scene.is_object(owner):
            body = scene.shape(owner)
            return body.center, body.top - 0.03
        region = scene.site(target)
        height = region[2] + 0.015
        drawer = scene.drawer(target)
        if drawer is not None:
            # The middle of what stands out of the cabinet.
            _, out = scene.handle(drawer)
            hidden = max(_DRAWER_LENGTH - scene.opening(drawer), 0)
            return region + hidden / 2 * out, height
        return self._free_place(name, target, height), height

    def _free_place(self, name: str, target: str, height: float) -> np.ndarray:
        """The place in a region with most room for an object, near its middle.

        Where several objects shall go, each gets its own part, side by side.
        """
        scene = self._scene
        region, half = scene.region(target)
        body = scene.shape(name)
        obstacles = scene.obstacles(name, scene.owner(target))
        corners = body.boxes.reshape(-1, 3) - np.r_[body.center[:2], body.bottom]
        steps = np.linspace(-0.8, 0.8, 7)
        places = [region + half * [x, y, 0] for x in steps for y in steps]
        middle = region + self._part(name, target, half, corners)

        def value(place):
            free = room(corners + np.r_[place[:2], height], obstacles)
            return min(free, _ROOM) - 0.1 * np.linalg.norm(place - middle)

        return max(places, key=value)

    def _part(self, name, target, half, corners) -> np.ndarray:
        """From the middle of a region to an object's own part of it, metres, [3]."""
        sharing = [goal[1] for goal in self._scene.goals if goal[2:] == [target]]
        if len(sharing) < 2:
            return np.zeros(3)
        # Beside each other across their narrow side.
        axis = np.argmin(np.ptp(corners[:, :2], axis=0))
        part = np.linspace(-_SHARED, _SHARED, len(sharing))[sharing.index(name)]
        return part * half * np.eye(3)[axis]

    def _pull(self, drawer: int, distance: float) -> Iterator[np.ndarray]:
        """Opens a drawer by its handle, the hand leaning towards it."""
        handle, out = self._scene.handle(drawer)
        rotation = leaning(out, _LEAN, self._scene.hand_rotation)
        approach = rotation[:, 2]
        start = handle - 0.08 * approach
        # From above, clear of what stands on the table.
        yield from self._move(start + 0.1 * _UP, rotation, tolerance=0.03, steps=80)
        yield from self._move(start, rotation)
        grasp = Grasp(handle + 0.005 * approach, rotation)
        yield from self._move(grasp.position, rotation, tolerance=0.006)
        yield from self._close(grasp)
        yield from self._move(handle + distance * out, rotation, steps=40)
        yield from self._release(out + _UP)
        # The way to what comes next leads over the open drawer.
        yield from self._move(self._home, turned(0.0), tolerance=0.05, steps=80)

    def _push(self, drawer: int) -> Iterator[np.ndarray]:
        """Shuts a drawer with closed fingers against its front."""
        handle, out = self._scene.handle(drawer)
        # Its flat side to the cabinet, the wrist clear of the handles above.
        flat = turned(comfortable(np.arctan2(out[1], out[0])))
        rotation = tilted(flat, out, _PUSH_TILT)
        self._gripper = _CLOSED
        start = handle + 0.06 * out
        yield from self._move(start + 0.15 * _UP, rotation, tolerance=0.03, steps=80)
        yield from self._move(start, rotation)
        away = self._scene.opening(drawer) + 0.03
        yield from self._move(handle - away * out, rotation, steps=60)
        yield from self._release(out + _UP)

    def _turn_knob(self, name: str, *, on: bool) -> Iterator[np.ndarray]:
        """Takes a knob by its ridge and turns it."""
        grasp = plan_grasp(self._scene.shape(f"{name}_button"), [], 0, np.zeros(3))
        above = grasp.position + _CLEARANCE * _UP
        yield from self._move(above, grasp.rotation, tolerance=0.015, steps=80)
        yield from self._move(grasp.position, grasp.rotation, tolerance=0.004, steps=50)
        yield from self._close(grasp)
        angle = _KNOB if on else -_KNOB
        rotation = turned(angle, grasp.rotation)
        yield from self._move(grasp.position, rotation, tolerance=0.0, steps=40)
        yield from self._release(_UP)

    # Movements.

    def _move(
        self,
        position: np.ndarray,
        rotation: np.ndarray,
        *,
        tolerance: float = 0.01,
        steps: int = 60,
    ) -> Iterator[np.ndarray]:
        """Moves the hand to a pose until it is there, stands still or time is up."""
        errors = []
        for _ in range(steps):
            error = position - self._scene.hand
            turn = _turn(self._scene.hand_rotation, rotation)
            if np.linalg.norm(error) < tolerance and np.linalg.norm(turn) < 0.1:
                return
            errors.append(np.r_[error, turn])
            if len(errors) > _PATIENCE and tolerance > 0:
                progress = errors[-1] - errors[-1 - _PATIENCE]
                if np.abs(progress).max() < _STILL:
                    return
            yield np.clip(np.r_[error / _STEP, turn / _TURN], -1, 1)

    def _close(self, grasp: Grasp) -> Iterator[np.ndarray]:
        """Closes the fingers in place: left alone, the hand rises and slips off."""
        self._gripper = _CLOSED
        yield from self._move(grasp.position, grasp.rotation, tolerance=0.0, steps=10)

    def _release(self, away: np.ndarray) -> Iterator[np.ndarray]:
        """Opens the fingers and draws the hand back in a direction."""
        self._gripper = _OPEN
        for _ in range(8):
            # Never quite still: data sets leave out steps in which nothing is asked.
            yield np.r_[0.05 * np.asarray(away), np.zeros(3)]
        goal = self._scene.hand + _CLEARANCE * np.asarray(away)
        rotation = self._scene.hand_rotation
        yield from self._move(goal, rotation, tolerance=0.02, steps=25)


def _reachable(scene: Scene, kind: str, names: list[str]) -> bool:
    if kind in ("on", "in"):
        return scene.is_object(names[0])
    if kind in ("open", "close"):
        return scene.drawer(names[0]) is not None
    return kind in ("turnon", "turnoff")


def _turn(present: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Axis-angle vector [3], radians, from one rotation to another."""
    turn = wanted @ present.T
    axis = np.array([turn[2, 1], turn[0, 2], turn[1, 0]])
    axis -= [turn[1, 2], turn[2, 0], turn[0, 1]]
    length = np.linalg.norm(axis)
    angle = np.arctan2(length, np.trace(turn) - 1)
    if length > 1e-6:
        return angle * axis / length
    if angle < 1:
        return axis / 2
    # Half a turn: the axis is what stays in place.
    return np.pi * np.linalg.eigh(turn + turn.T)[1][:, -1]
