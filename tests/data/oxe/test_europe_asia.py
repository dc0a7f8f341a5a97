"""Data sets from Europe and Asia, from disk to index."""

import math

import numpy as np
import pytest

from tests.fake_oxe import FILE, check, counting, in_one, in_parts, numbers, plain
from vla_jax.data.write import Image, Text

HALF = math.sqrt(0.5)
TOKYO_PR2 = "utokyo_pr2_{}_converted_externally_to_rlds"


def _ending(width: int, column: int = 6) -> np.ndarray:
    action = counting(2, width)
    action[:, column] = [1, 0]
    return action


def test_taco_play_has_two_instructions(tmp_path):
    features = in_parts(
        {
            "actions": numbers(7),
            "rel_actions_gripper": numbers(7),
            "rel_actions_world": numbers(7),
            "terminate_episode": numbers(),
        },
        {
            "depth_gripper": numbers(84, 84),
            "depth_static": numbers(150, 200),
            "rgb_gripper": Image(84, 84),
            "rgb_static": Image(150, 200),
            "robot_obs": numbers(15),
            "structured_language_instruction": Text(),
        },
    )
    action = counting(2, 7)
    action[:, 6] = [1, -1]
    check(
        tmp_path,
        "taco_play",
        features,
        {
            "action/rel_actions_world": action,
            "observation/robot_obs": counting(2, 15),
            "observation/natural_language_instruction": ["pull the handle"] * 2,
            "observation/structured_language_instruction": ["open_drawer"] * 2,
            "observation/depth_static": plain(2, 150, 200) / 1000,
            "observation/depth_gripper": plain(2, 84, 84) / 100,
        },
        depth={"primary": [0.3, 0.301], "wrist": [3, 3.01]},
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[[0, 1, 2, 3, 4, 5, 7], [100, 101, 102, 103, 104, 105, 107]],
        language=["pull the handle", "open drawer"],
        hz=15,
    )


def test_dlr_edan_shared_control(tmp_path):
    check(
        tmp_path,
        "dlr_edan_shared_control_converted_externally_to_rlds",
        in_one(7, {"image": Image(360, 640), "state": numbers(7)}),
        {
            "action": _ending(7),
            "observation/state": counting(2, 7),
            "language_instruction": ["open the drawer"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 0], [100, 101, 102, 103, 104, 105, 1]],
        proprio=[[0, 1, 2, 3, 4, 5, 6], [100, 101, 102, 103, 104, 105, 106]],
        language=["open the drawer"],
        hz=5,
        metadata_features=FILE,
    )


@pytest.mark.parametrize(
    ("name", "width", "action_width", "size", "wrist"),
    [
        ("dlr_sara_pour_converted_externally_to_rlds", 6, 7, (480, 640), False),
        ("dlr_sara_grid_clamp_converted_externally_to_rlds", 12, 7, (480, 640), False),
        ("imperialcollege_sawyer_wrist_cam", 1, 8, (64, 64), True),
        (TOKYO_PR2.format("opening_fridge"), 7, 8, (128, 128), False),
        (TOKYO_PR2.format("tabletop_manipulation"), 7, 8, (128, 128), False),
    ],
)
def test_an_eighth_action_and_forces_are_left_out(
    tmp_path, name, width, action_width, size, wrist
):
    observation = {"image": Image(*size), "state": numbers(width)}
    if wrist:
        observation["wrist_image"] = Image(*size)
    proprio = {
        1: [[0], [100]],
        6: [[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]],
        7: [[0, 1, 2, 3, 4, 5, 6], [100, 101, 102, 103, 104, 105, 106]],
        12: [[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]],
    }
    check(
        tmp_path,
        name,
        in_one(action_width, observation),
        {
            "action": _ending(action_width),
            "observation/state": counting(2, width),
            "language_instruction": ["do it"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=proprio[width],
        language=["do it"],
        hz=10,
        metadata_features=FILE,
    )


def test_utokyo_xarm_has_a_pose_as_proprio(tmp_path):
    observation = {
        "end_effector_pose": numbers(6),
        "hand_image": Image(224, 224),
        "image": Image(224, 224),
        "image2": Image(224, 224),
        "joint_state": numbers(14),
        "joint_trajectory": numbers(21),
    }
    check(
        tmp_path,
        "utokyo_xarm_pick_and_place_converted_externally_to_rlds",
        in_one(7, observation),
        {
            "action": _ending(7),
            "observation/end_effector_pose": counting(2, 6),
            "language_instruction": ["pick up a white plate"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]],
        language=["pick up a white plate"],
        kinds="aaaaaag",
        hz=10,
        metadata_features=FILE,
    )


def test_utokyo_xarm_bimanual_has_both_arms(tmp_path):
    observation = {
        "action_l": numbers(7),
        "action_r": numbers(7),
        "image": Image(256, 256),
        "pose_l": numbers(6),
        "pose_r": numbers(6),
    }
    check(
        tmp_path,
        "utokyo_xarm_bimanual_converted_externally_to_rlds",
        in_one(14, observation),
        {
            "action": _ending(14, 13),
            "observation/pose_l": counting(2, 6),
            "observation/pose_r": counting(2, 6) + 50,
            "language_instruction": ["fold a towel"] * 2,
        },
        action=[
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1],
            [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 0],
        ],
        proprio=[
            [0, 1, 2, 3, 4, 5, 50, 51, 52, 53, 54, 55],
            [100, 101, 102, 103, 104, 105, 150, 151, 152, 153, 154, 155],
        ],
        language=["fold a towel"],
        kinds="aaaaaaaaaaaaag",
        hz=10,
        metadata_features=FILE,
    )


def test_tokyo_u_lsmo(tmp_path):
    check(
        tmp_path,
        "tokyo_u_lsmo_converted_externally_to_rlds",
        in_one(7, {"image": Image(120, 120), "state": numbers(13)}),
        {
            "action": _ending(7),
            "observation/state": counting(2, 13),
            "language_instruction": ["avoid obstacle"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[[0, 1, 2, 3, 4, 5, 12], [100, 101, 102, 103, 104, 105, 112]],
        language=["avoid obstacle"],
        hz=10,
        metadata_features=FILE,
    )


def test_kaist_nonprehensile_has_no_use_for_its_gripper(tmp_path):
    observation = {
        "image": Image(480, 640),
        "partial_pointcloud": numbers(512, 3),
        "state": numbers(21),
    }
    check(
        tmp_path,
        "kaist_nonprehensile_converted_externally_to_rlds",
        in_one(20, observation),
        {
            "action": counting(2, 20),
            "observation/state": counting(2, 21),
            "language_instruction": ["push it to the right"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 0], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[
            [14, 15, 16, 17, 18, 19, 20],
            [114, 115, 116, 117, 118, 119, 120],
        ],
        language=["push it to the right"],
        hz=10,
        metadata_features=FILE,
    )


def test_furniture_bench_turns_quaternions_into_angles(tmp_path):
    action = np.array(
        [
            [0.1, 0.2, 0.3, 0, 0, 0, 1, -1],
            [0.4, 0.5, 0.6, 0, 0, HALF, HALF, 1],
        ]
    )
    observation = {
        "image": Image(224, 224, encoding="png"),
        "state": numbers(35),
        "wrist_image": Image(224, 224, encoding="png"),
    }
    check(
        tmp_path,
        "furniture_bench_dataset_converted_externally_to_rlds",
        in_one(8, observation, skill_completion=numbers()),
        {
            "action": action,
            "observation/state": counting(2, 35),
            "language_instruction": ["assemble lamp"] * 2,
        },
        action=[
            [0.1, 0.2, 0.3, 0, 0, 0, 1],
            [0.4, 0.5, 0.6, 0, 0, math.pi / 2, 0],
        ],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 34],
            [100, 101, 102, 103, 104, 105, 106, 134],
        ],
        language=["assemble lamp"],
        hz=10,
        metadata_features=FILE | {"furniture": Text(), "initial_randomness": Text()},
    )


def test_rh20t_has_goals_in_the_frame_of_the_base(tmp_path):
    observation = {
        "tcp_base": numbers(6),
        "gripper_width": numbers(),
        "image_front": Image(8, 8),
        "image_side_right": Image(8, 8),
        "image_wrist": Image(8, 8),
    }
    features = in_one(7, observation, embedding=False)
    features["action"] = {"tcp_base": numbers(6), "gripper": numbers()}
    check(
        tmp_path,
        "rh20t",
        features,
        {
            "action/tcp_base": counting(2, 6),
            "action/gripper": np.array([1.0, 0]),
            "observation/tcp_base": counting(2, 6) + 40,
            "observation/gripper_width": np.array([0.1, 0.2]),
            "language_instruction": ["press the switch"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[
            [40, 41, 42, 43, 44, 45, 0.1],
            [140, 141, 142, 143, 144, 145, 0.2],
        ],
        language=["press the switch"],
        kinds="aaaaaag",
        hz=10,
    )
