"""Scripted experts for ALOHA: waypoints of the tools, played once, turned into joints.

The demonstrations of Zhao et al. (2023): in a model whose grippers hang on mocap bodies
the waypoints are rolled out; the joints that are reached become the targets of the
model that has motors. Two changes make this work from MuJoCo 3 on: the welds between
mocap bodies and grippers get `_TORQUE_SCALE`, without which they hardly turn the hands
against the friction of the joints, and the insertion ends `_INSERTED` from the middle
instead of 0.05 m, since the arms come to rest half a millimetre early.

All waypoints are (step, x y z, quaternion wxyz, gripper 1 = open).
"""

import numpy as np

from vla_jax.simulation.aloha_scene import (
    advance,
    fingers,
    load_model,
    read_joints,
    settle,
    start,
)

NUM_STEPS = 400
_TORQUE_SCALE = 10.0
_INSERTED = 0.045  # metres from the middle, of either tool
# Where the mocap bodies stand at the start: on the gripper links.
_HOME = ((-0.31718881, 0.5, 0.29525084), (0.31718881, 0.49999888, 0.29525084))

_LEVEL = (1.0, 0.0, 0.0, 0.0)
_ROLLED = (0.7071068, 0.7071068, 0.0, 0.0)  # by 90 degrees about x
_LEFT_DOWN = (0.8660254, 0.0, 0.5, 0.0)  # pitched by 60 degrees
_RIGHT_DOWN = (0.8660254, 0.0, -0.5, 0.0)

Waypoints = list[tuple[int, np.ndarray, tuple[float, ...], float]]


class Planner:
    """Plans the joint targets of whole demonstrations of one task."""

    def __init__(self, task: str):
        """Compiles the model with mocap bodies.

        Raises:
            ValueError: an unknown task, or gym-aloha is not installed.
        """
        import mujoco

        self._task = task
        self._model = load_model(task, end_effector=True)
        self._model.eq_data[:, 10] = _TORQUE_SCALE
        self._data = mujoco.MjData(self._model)

    def plan(self, poses: np.ndarray) -> np.ndarray:
        """Joint targets [400, 14] that solve the task from start poses [o, 7].

        The target of a step is what the tools had reached by then, with the grippers
        as they were commanded; the first is the position of rest.
        """
        model, data = self._model, self._data
        start(model, data, poses)
        data.mocap_pos[:] = _HOME
        data.mocap_quat[:] = _LEVEL
        data.ctrl[:] = fingers(0) * 2
        settle(model, data)
        left, right = waypoints(self._task, poses[:, :3])
        joints = []
        grippers = (0.0, 0.0)
        for step in range(NUM_STEPS):
            target = read_joints(data)
            target[[6, 13]] = grippers
            joints.append(target)
            tools = [interpolate(path, step) for path in (left, right)]
            data.mocap_pos[:] = [tool[:3] for tool in tools]
            data.mocap_quat[:] = [tool[3:7] for tool in tools]
            grippers = [tool[7] for tool in tools]
            data.ctrl[:] = [finger for g in grippers for finger in fingers(g)]
            advance(model, data)
        return np.array(joints)


def waypoints(task: str, objects: np.ndarray) -> tuple[Waypoints, Waypoints]:
    """The paths of the left and the right tool, for objects at [o, 3]."""
    if task == "transfer_cube":
        return _transfer(objects[0])
    return _insert(peg=objects[0], socket=objects[1])


def interpolate(path: Waypoints, step: int) -> np.ndarray:
    """Position, quaternion and gripper [8] between two waypoints, each linear.

    The quaternion is not normalized; MuJoCo does it.
    """
    times = [time for time, *_ in path]
    values = np.array([[*xyz, *quaternion, grip] for _, xyz, quaternion, grip in path])
    return np.array([np.interp(step, times, column) for column in values.T])


def _transfer(cube: np.ndarray) -> tuple[Waypoints, Waypoints]:
    meet = np.array([0, 0.5, 0.25])
    ready, take = meet + [-0.1, 0, -0.02], meet + [0.02, 0, -0.02]
    above, grasp = cube + [0, 0, 0.08], cube + [0, 0, -0.015]
    left = [
        (0, np.array(_HOME[0]), _LEVEL, 0),
        (100, ready, _ROLLED, 1),
        (260, take, _ROLLED, 1),
        (310, take, _ROLLED, 0),
        (360, ready, _LEVEL, 0),
        (400, ready, _LEVEL, 0),
    ]
    right = [
        (0, np.array(_HOME[1]), _LEVEL, 0),
        (90, above, _RIGHT_DOWN, 1),
        (130, grasp, _RIGHT_DOWN, 1),
        (170, grasp, _RIGHT_DOWN, 0),
        (200, meet + [0.05, 0, 0], _RIGHT_DOWN, 0),
        (220, meet, _RIGHT_DOWN, 0),
        (310, meet, _RIGHT_DOWN, 1),
        (360, meet + [0.1, 0, 0], _RIGHT_DOWN, 1),
        (400, meet + [0.1, 0, 0], _RIGHT_DOWN, 1),
    ]
    return left, right


def _insert(peg: np.ndarray, socket: np.ndarray) -> tuple[Waypoints, Waypoints]:
    meet = np.array([0, 0.5, 0.15])
    lift = np.array([0, 0, 0.00715])  # brings the peg level with the opening
    inserted = np.array([_INSERTED, 0, 0])

    def path(home, part, quaternion, side, height):
        apart = meet + side * np.array([0.1, 0, 0]) + height
        together = meet + side * inserted + height
        return [
            (0, np.array(home), _LEVEL, 0),
            (120, part + [0, 0, 0.08], quaternion, 1),
            (170, part + [0, 0, -0.03], quaternion, 1),
            (220, part + [0, 0, -0.03], quaternion, 0),
            (285, apart, quaternion, 0),
            (340, together, quaternion, 0),
            (400, together, quaternion, 0),
        ]

    return (
        path(_HOME[0], socket, _LEFT_DOWN, -1, 0 * lift),
        path(_HOME[1], peg, _RIGHT_DOWN, 1, lift),
    )
