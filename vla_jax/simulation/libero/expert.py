"""Scripted expert for LIBERO: reads the goal of a task and moves the hand by waypoints.

The script sees the simulator's true poses, which no policy does. It is a generator that
is asked for one action per step and measures the hand before each, so that it corrects
what noise on the executed action has done.
"""

from collections.abc import Iterator

import mujoco
import numpy as np

from vla_jax.simulation.libero.grasp import Grasp, leaning, plan_grasp, turned
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
_DRAWER = 0.2  # metres that a drawer is pulled
_KNOB = 1.0  # radians that a knob is turned
_UP = np.array([0.0, 0.0, 1.0])


class Expert:
    """Plays one episode of one task, from its present state on."""

    def __init__(self, simulator):
        """Plans with `simulator`, LIBERO's own environment after a reset.

        Raises:
            ValueError: the goal has a part that no skill reaches.
        """
        self._scene = Scene(simulator)
        self._gripper = _OPEN
        self._home = self._scene.hand + 0.05 * _UP
        for kind, *names in self._scene.goals:
            if not _reachable(self._scene, kind, names):
                raise ValueError(f"No skill reaches the goal {[kind, *names]}.")
        self._script = self._play()

    def action(self) -> np.ndarray:
        """The standard action [7] of this step; holds still when the script is over."""
        move = next(self._script, np.zeros(6))
        return np.r_[move, self._gripper].astype(np.float32)

    def _play(self) -> Iterator[np.ndarray]:
        scene = self._scene
        goals = sorted(scene.goals, key=lambda goal: ORDER.index(goal[0]))
        for kind, *names in goals:
            drawer = scene.drawer(names[-1])
            if kind in ("turnon", "turnoff"):
                yield from self._turn_knob(names[0], on=kind == "turnon")
            elif kind == "open":
                yield from self._pull(drawer)
            elif kind == "close":
                yield from self._push(drawer)
            else:
                if drawer is not None and scene.opening(drawer) < _DRAWER / 2:
                    yield from self._pull(drawer)
                yield from self._pick_and_place(*names)

    # Skills. Each yields moves [6]: displacement and turn, -1 to 1.

    def _pick_and_place(self, name: str, target: str) -> Iterator[np.ndarray]:
        for attempt in range(_ATTEMPTS):
            before = self._scene.shape(name).bottom
            grasp = plan_grasp(
                self._scene.shape(name), self._scene.obstacles(name), attempt
            )
            yield from self._pick(grasp)
            if self._scene.shape(name).bottom > before + _LIFTED:
                break
            yield from self._release(_UP)
        yield from self._place(name, target, grasp.rotation)

    def _pick(self, grasp: Grasp) -> Iterator[np.ndarray]:
        above = grasp.position + _CLEARANCE * _UP
        yield from self._move(above, grasp.rotation, tolerance=0.015)
        yield from self._move(grasp.position, grasp.rotation, tolerance=0.004, steps=50)
        yield from self._close(grasp)
        yield from self._move(above + 0.08 * _UP, grasp.rotation, tolerance=0.03)

    def _place(
        self, name: str, target: str, rotation: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Carries what is in the hand over the target, lowers it and lets go."""
        scene = self._scene
        goal, height = self._resting_place(target)
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
        yield from self._release(_UP)

    def _resting_place(self, target: str) -> tuple[np.ndarray, float]:
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
        return region, region[2] + 0.015

    def _pull(self, drawer: int) -> Iterator[np.ndarray]:
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
        yield from self._move(handle + _DRAWER * out, rotation, steps=40)
        yield from self._release(out + _UP)
        # The way to what comes next leads over the open drawer.
        yield from self._move(self._home, turned(0.0), tolerance=0.05, steps=80)

    def _push(self, drawer: int) -> Iterator[np.ndarray]:
        """Shuts a drawer with closed fingers against its front."""
        handle, out = self._scene.handle(drawer)
        rotation = turned(0.0)
        self._gripper = _CLOSED
        start = handle + 0.06 * out
        yield from self._move(start + 0.15 * _UP, rotation, tolerance=0.03, steps=80)
        yield from self._move(start, rotation)
        away = self._scene.opening(drawer) + 0.03
        yield from self._move(handle - away * out, rotation, steps=60)
        yield from self._release(out + _UP)

    def _turn_knob(self, name: str, *, on: bool) -> Iterator[np.ndarray]:
        """Takes a knob by its ridge and turns it."""
        grasp = plan_grasp(self._scene.shape(f"{name}_button"), [], 0)
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
        """Moves the hand to a pose until it is near enough or time is up."""
        for _ in range(steps):
            error = position - self._scene.hand
            turn = _turn(self._scene.hand_rotation, rotation)
            if np.linalg.norm(error) < tolerance and np.linalg.norm(turn) < 0.1:
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
            yield np.zeros(6)
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
    quaternion, turn = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quaternion, (wanted @ present.T).ravel())
    mujoco.mju_quat2Vel(turn, quaternion, 1.0)
    return turn
