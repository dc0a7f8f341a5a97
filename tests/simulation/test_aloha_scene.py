"""ALOHA's stages and waypoints by hand, its physics against gym-aloha's own."""

import importlib.util

import numpy as np
import pytest

# Not importorskip: that would import MuJoCo before its OpenGL backend is chosen.
if importlib.util.find_spec("gym_aloha") is None:
    pytest.skip("gym-aloha is not installed", allow_module_level=True)

from tests.own_process import in_own_process
from vla_jax.simulation.aloha_expert import interpolate, waypoints
from vla_jax.simulation.aloha_scene import (
    SCENES,
    draw_start,
    insertion_stage,
    native_control,
    transfer_stage,
)

LEFT = "vx300s_left/10_left_gripper_finger"
RIGHT = "vx300s_right/10_right_gripper_finger"


def _contacts(*pairs):
    return {frozenset(pair) for pair in pairs}


def test_stages_of_the_transfer():
    table, left, right = (("red_box", other) for other in ("table", LEFT, RIGHT))
    stages = [
        (_contacts(), 0),
        (_contacts(table), 0),
        (_contacts(table, right), 1),
        (_contacts(right), 2),
        (_contacts(table, right, left), 3),
        (_contacts(right, left), 4),
        (_contacts(left), 4),
        (_contacts(("red_box", "vx300s_left/10_right_gripper_finger")), 0),
    ]
    for contacts, stage in stages:
        assert transfer_stage(contacts) == stage


def test_stages_of_the_insertion():
    peg, socket = (RIGHT, "red_peg"), ("socket-3", LEFT)
    peg_down, socket_down = ("red_peg", "table"), ("socket-1", "table")
    meet, pin = ("red_peg", "socket-2"), ("red_peg", "pin")
    stages = [
        (_contacts(peg_down, socket_down), 0),
        (_contacts(peg), 0),
        (_contacts(peg, socket, peg_down), 1),
        (_contacts(peg, socket, socket_down), 1),
        (_contacts(peg, socket), 2),
        (_contacts(peg, socket, meet), 3),
        (_contacts(peg, socket, meet, socket_down), 1),
        (_contacts(meet), 3),
        (_contacts(peg, socket, meet, pin), 4),
    ]
    for contacts, stage in stages:
        assert insertion_stage(contacts) == stage


def test_start_poses_are_those_that_gym_aloha_draws():
    from gym_aloha.utils import sample_box_pose, sample_insertion_pose

    for seed in (0, 7, 2**31 - 1):
        np.testing.assert_array_equal(
            draw_start("transfer_cube", seed), [sample_box_pose(seed)]
        )
        np.testing.assert_array_equal(
            draw_start("insertion", seed), sample_insertion_pose(seed)
        )


def test_waypoints_are_interpolated_linearly_and_held_at_the_end():
    path = [
        (0, np.array([0.0, 0, 0]), (1.0, 0.0, 0.0, 0.0), 0),
        (10, np.array([1.0, 2, 3]), (0.0, 1.0, 0.0, 0.0), 1),
    ]
    np.testing.assert_allclose(interpolate(path, 0), [0, 0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(interpolate(path, 5), [0.5, 1, 1.5, 0.5, 0.5, 0, 0, 0.5])
    np.testing.assert_allclose(interpolate(path, 12), [1, 2, 3, 0, 1, 0, 0, 1])


def test_the_tools_go_where_the_objects_are():
    cube = np.array([[0.1, 0.5, 0.05]])
    left, right = waypoints("transfer_cube", cube)
    np.testing.assert_allclose(interpolate(right, 150)[:3], [0.1, 0.5, 0.035])
    np.testing.assert_allclose(interpolate(right, 300)[:3], [0, 0.5, 0.25])
    np.testing.assert_allclose(interpolate(left, 310)[:3], [0.02, 0.5, 0.23])
    peg, socket = [0.15, 0.45, 0.05], [-0.12, 0.55, 0.05]
    left, right = waypoints("insertion", np.array([peg, socket]))
    np.testing.assert_allclose(interpolate(left, 200)[:3], [-0.12, 0.55, 0.02])
    np.testing.assert_allclose(interpolate(right, 200)[:3], [0.15, 0.45, 0.02])
    np.testing.assert_allclose(interpolate(left, 399)[:3], [-0.045, 0.5, 0.15])
    np.testing.assert_allclose(interpolate(right, 399)[:3], [0.045, 0.5, 0.15715])


def test_fingers_are_driven_against_each_other():
    control = native_control(np.array([*range(6), 0.0, *range(6), 1.0]))
    np.testing.assert_allclose(
        control,
        [*range(6), 0.01844, -0.01844, *range(6), 0.058, -0.058],
    )


@in_own_process
def test_states_and_rewards_are_those_of_gym_aloha():
    from vla_jax.simulation.aloha import Aloha

    environments = {task: Aloha(task, cameras=()) for task in SCENES}
    # dm_control must find the backend that was chosen.
    from dm_control import mujoco
    from dm_control.rl import control
    from gym_aloha import tasks  # noqa: F401
    from gym_aloha.constants import ASSETS_DIR, DT
    from gym_aloha.tasks import sim

    theirs = {"transfer_cube": sim.TransferCubeTask, "insertion": sim.InsertionTask}
    for task, ours in environments.items():
        reference = theirs[task]()
        reference.get_observation = lambda physics: {}  # renders three large pictures
        path = ASSETS_DIR / f"bimanual_viperx_{task}.xml"
        physics = mujoco.Physics.from_xml_path(str(path))
        environment = control.Environment(
            physics, reference, float("inf"), control_timestep=DT
        )
        sim.BOX_POSE[0] = draw_start(task, 5).reshape(-1)
        environment.reset()
        first = ours.reset(5)
        np.testing.assert_array_equal(
            first["proprio"], np.float32(reference.get_qpos(physics))
        )
        ours.expert_action()
        rewards = set()
        # Twice as fast as the expert: the two must agree whatever is played.
        for action in ours._plan[:260:2]:
            observation, reward, _ = ours.step(action)
            rewards.add(reward)
            found = environment.step(np.float64(np.float32(action)))
            np.testing.assert_array_equal(
                observation["proprio"], np.float32(reference.get_qpos(physics))
            )
            poses = ours.object_poses()[:, [0, 1, 2, 6, 3, 4, 5]]
            np.testing.assert_array_equal(
                poses.reshape(-1), reference.get_env_state(physics)
            )
            assert reward == found.reward
        assert len(rewards) > 1
