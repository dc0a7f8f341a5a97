"""Scripted expert for LIBERO: reads the goal of a task and moves the hand by waypoints.

The script sees the simulator's true poses, which no policy does. It is a generator that
is asked for one action per step and measures the hand before each, so that it corrects
what noise on the executed action has done.
"""

from collections.abc import Iterator

import mujoco
import numpy as np

from vla_jax.simulation.libero.geometry import Shape, shape
from vla_jax.simulation.libero.grasp import Grasp, plan_grasp

_STEP = 0.05  # metres that an action of 1 asks for
_TURN = 0.5  # radians
_CLEARANCE = 0.12  # metres above what is approached or carried over
_OPEN, _CLOSED = 1.0, 0.0
_ATTEMPTS = 3  # grasps of one object before it is given up
_LIFTED = 0.05  # metres that a grasped object rises with the hand
# The hand as it points straight down at the start: x forward, y and z turned around.
_DOWN = np.diag([1.0, -1.0, -1.0])


class Expert:
    """Plays one episode of one task, from its present state on."""

    def __init__(self, simulator):
        """Plans with `simulator`, LIBERO's own environment after a reset.

        Raises:
            ValueError: the goal has a part that no skill reaches.
        """
        self._simulator = simulator
        self._model = simulator.sim.model._model
        self._data = simulator.sim.data._data
        self._gripper = _OPEN
        self._script = self._play(simulator.parsed_problem["goal_state"])

    def action(self) -> np.ndarray:
        """The standard action [7] of this step; holds still when the script is over."""
        move = next(self._script, None)
        if move is None:
            move = np.zeros(6)
        return np.r_[move, self._gripper].astype(np.float32)

    # What the script sees.

    def _hand(self) -> np.ndarray:
        return self._site("gripper0_grip_site")

    def _site(self, name: str) -> np.ndarray:
        return self._data.site_xpos[self._id("SITE", name)].copy()

    def _shape(self, name: str) -> Shape:
        return shape(self._model, self._data, self._id("BODY", f"{name}_main"))

    def _id(self, kind: str, name: str) -> int:
        kind = getattr(mujoco.mjtObj, f"mjOBJ_{kind}")
        return mujoco.mj_name2id(self._model, kind, name)

    def _is_object(self, name: str) -> bool:
        return name in self._simulator.objects_dict

    # Skills. Each yields moves [6]: displacement and turn, -1 to 1.

    def _play(self, goals: list[list[str]]) -> Iterator[np.ndarray]:
        for kind, *names in goals:
            if kind in ("on", "in") and self._is_object(names[0]):
                yield from self._pick_and_place(*names)
            else:
                raise ValueError(f"No skill reaches the goal {[kind, *names]}.")

    def _pick_and_place(self, name: str, target: str) -> Iterator[np.ndarray]:
        for attempt in range(_ATTEMPTS):
            before = self._shape(name).bottom
            yield from self._pick(name, attempt)
            if self._shape(name).bottom > before + _LIFTED:
                break
            yield from self._release()
        yield from self._place(name, target)

    def _pick(self, name: str, attempt: int) -> Iterator[np.ndarray]:
        grasp = plan_grasp(self._shape(name), self._obstacles(name), attempt)
        above = grasp.position + [0, 0, _CLEARANCE]
        yield from self._move(above, grasp.yaw, tolerance=0.015)
        yield from self._move(grasp.position, grasp.yaw, tolerance=0.004, steps=50)
        yield from self._close(grasp)
        yield from self._move(above + [0, 0, 0.08], grasp.yaw, tolerance=0.03)
        self._grasp = grasp

    def _place(self, name: str, target: str) -> Iterator[np.ndarray]:
        grasp: Grasp = self._grasp
        body = self._shape(name)
        offset = body.center - self._hand()
        below = body.bottom - self._hand()[2]
        goal, height = self._goal(target)
        hand = np.r_[goal[:2] - offset[:2], 0]
        hand[2] = max(height - below, self._hand()[2])
        yield from self._move(hand, grasp.yaw, tolerance=0.015, steps=100)
        # What swings in the hand, or turned in it, is corrected before it goes down.
        body = self._shape(name)
        hand[:2] = goal[:2] - (body.center - self._hand())[:2]
        yield from self._move(hand, grasp.yaw, tolerance=0.006, steps=25)
        hand[2] = height - (self._shape(name).bottom - self._hand()[2])
        yield from self._move(hand, grasp.yaw, tolerance=0.008, steps=40)
        yield from self._release()

    def _goal(self, target: str) -> tuple[np.ndarray, float]:
        """Where the center of an object shall go, and at what height its bottom."""
        if self._is_object(target):
            body = self._shape(target)
            return body.center, body.surface() + 0.015
        region = self._site(target)
        owner = self._simulator.parsed_problem["regions"].get(target, {}).get("target")
        if owner and self._is_object(owner):
            body = self._shape(owner)
            return body.center, body.top - 0.03
        return region, region[2] + 0.015

    def _obstacles(self, name: str) -> list[Shape]:
        others = [*self._simulator.objects_dict, *self._simulator.fixtures_dict]
        shapes = []
        for other in others:
            if other == name or self._id("BODY", f"{other}_main") < 0:
                continue
            shapes.append(self._shape(other))
        return shapes

    # Movements.

    def _move(
        self, position: np.ndarray, yaw: float, *, tolerance: float, steps: int = 60
    ) -> Iterator[np.ndarray]:
        """Moves the hand, pointing down, until it is near enough or time is up."""
        cosine, sine = np.cos(yaw), np.sin(yaw)
        wanted = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]) @ _DOWN
        for _ in range(steps):
            error = position - self._hand()
            turn = self._turn(wanted)
            if np.linalg.norm(error) < tolerance and np.linalg.norm(turn) < 0.1:
                return
            yield np.clip(np.r_[error / _STEP, turn / _TURN], -1, 1)

    def _turn(self, wanted: np.ndarray) -> np.ndarray:
        """Axis-angle vector [3] from the hand's orientation to the wanted one."""
        hand = self._id("BODY", "robot0_right_hand")
        present = self._data.xmat[hand].reshape(3, 3)
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, (wanted @ present.T).ravel())
        turn = np.empty(3)
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        return turn

    def _close(self, grasp: Grasp) -> Iterator[np.ndarray]:
        """Closes the fingers in place: left alone, the hand rises and slips off."""
        self._gripper = _CLOSED
        yield from self._move(grasp.position, grasp.yaw, tolerance=0.0, steps=10)

    def _release(self) -> Iterator[np.ndarray]:
        self._gripper = _OPEN
        for _ in range(8):
            yield np.zeros(6)
        above = self._hand() + [0, 0, _CLEARANCE]
        for _ in range(25):
            error = above - self._hand()
            if np.linalg.norm(error) < 0.02:
                return
            yield np.clip(np.r_[error / _STEP, 0, 0, 0], -1, 1)
