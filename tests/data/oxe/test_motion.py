"""Reached motions and rotations, value by value."""

import math

import numpy as np

from vla_jax.data.oxe.motion import (
    columns,
    goal_known,
    pose_matrix,
    quaternion_to_euler,
    reached_motion,
    zeros,
)


def test_a_motion_leads_to_the_state_reached_next():
    pose = np.array([[0, 1], [2, 4], [5, 9]], np.float32)
    assert reached_motion(pose).tolist() == [[2, 3], [3, 5], [0, 0]]
    assert reached_motion(pose, ahead=2).tolist() == [[5, 8], [0, 0], [0, 0]]
    assert reached_motion(pose, ahead=3).tolist() == [[0, 0]] * 3


def test_angles_turn_the_short_way_round():
    pose = np.array([[6, 3.0], [-1, -3.0]], np.float32)
    motion = reached_motion(pose, angles=slice(1, 2))
    np.testing.assert_allclose(motion, [[-7, 2 * math.pi - 6], [0, 0]], atol=1e-6)


def test_steps_without_a_known_goal_are_left_out():
    assert goal_known(4).tolist() == [0, 1, 2]
    assert goal_known(4, first=1).tolist() == [1, 2]
    assert goal_known(7, ahead=3, every=3).tolist() == [0, 3]
    assert goal_known(8, ahead=3, every=3).tolist() == [0, 3]
    assert goal_known(1).tolist() == [0]


def test_quaternions_become_roll_pitch_yaw():
    half = math.sqrt(0.5)
    quaternions = [
        [0, 0, 0, 1],
        [half, 0, 0, half],
        [0, half / 2, 0, math.sqrt(1 - half * half / 4)],
        [0, 0, 2 * half, 2 * half],  # of length 2
        [1, 0, 0, 0],
    ]
    expected = [
        [0, 0, 0],
        [math.pi / 2, 0, 0],
        [0, 2 * math.asin(half / 2), 0],
        [0, 0, math.pi / 2],
        [math.pi, 0, 0],
    ]
    euler = quaternion_to_euler(np.array(quaternions))
    np.testing.assert_allclose(euler, expected, atol=1e-6)
    # Roll by 90 degrees, then yaw by 90 degrees, about fixed axes.
    both = quaternion_to_euler(np.array([[0.5, 0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(both, [[math.pi / 2, 0, math.pi / 2]], atol=1e-6)


def test_columns_are_joined_along_the_last_axis():
    joined = columns([1, 2], [[3, 4], [5, 6]], np.array([True, False]), zeros(2))
    assert joined.tolist() == [[1, 3, 4, 1, 0], [2, 5, 6, 0, 0]]
    assert joined.dtype == np.float32


def test_poses_become_matrices():
    half = math.sqrt(0.5)
    poses = np.array([[1, 2, 3, 1, 0, 0, 0], [0, 0, 0, half, half, 0, 0]])
    expected = [
        [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]],
        [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]],
    ]
    np.testing.assert_allclose(pose_matrix(poses), expected, atol=1e-6)
    (turned,) = pose_matrix(np.array([[0, 0, 0, 0.5, 0.5, 0.5, 0.5]]))
    assert turned[:3, :3].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
