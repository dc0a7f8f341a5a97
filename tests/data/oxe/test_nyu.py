"""Data sets from New York, from disk to index."""

import numpy as np

from tests.fake_oxe import FILE, check, counting, in_one, in_parts, numbers, plain
from vla_jax.data.write import Image

NATURAL = "observation/natural_language_instruction"
CHANGED = [
    [0, 1, 2, 50, 51, 52, 1],
    [100, 101, 102, 150, 151, 152, 0],
    [200, 201, 202, 250, 251, 252, 1],
]


def test_nyu_door_opening_has_only_a_wrist_camera(tmp_path):
    features = in_parts(
        {
            "gripper_closedness_action": numbers(1),
            "rotation_delta": numbers(3),
            "terminate_episode": numbers(),
            "world_vector": numbers(3),
        },
        {"image": Image(720, 960)},
    )
    check(
        tmp_path,
        "nyu_door_opening_surprising_effectiveness",
        features,
        {
            "action/world_vector": counting(3, 3),
            "action/rotation_delta": counting(3, 3) + 50,
            "action/gripper_closedness_action": np.array([[0.0], [1], [-1]]),
            NATURAL: ["open door"] * 3,
        },
        action=CHANGED,
        proprio=[[0], [0], [0]],
        language=["open door"],
        hz=3,
    )


def test_columbia_pusht_says_what_changes(tmp_path):
    features = in_parts(
        {
            "gripper_closedness_action": numbers(),
            "rotation_delta": numbers(3),
            "terminate_episode": numbers(),
            "world_vector": numbers(3),
        },
        {
            "image": Image(240, 320),
            "robot_state": numbers(2),
            "wrist_image": Image(240, 320),
        },
    )
    check(
        tmp_path,
        "columbia_cairlab_pusht_real",
        features,
        {
            "action/world_vector": counting(3, 3),
            "action/rotation_delta": counting(3, 3) + 50,
            "action/gripper_closedness_action": np.array([0.0, 1, -1]),
            "observation/robot_state": counting(3, 2),
            NATURAL: ["push the t"] * 3,
        },
        action=CHANGED,
        proprio=[[0, 1], [100, 101], [200, 201]],
        language=["push the t"],
        hz=10,
    )


def test_nyu_franka_play(tmp_path):
    action = counting(2, 15)
    action[:, 13] = [-0.5, 1]
    observation = {
        "depth": numbers(128, 128, 1, dtype=np.int32),
        "depth_additional_view": numbers(128, 128, 1, dtype=np.int32),
        "image": Image(128, 128),
        "image_additional_view": Image(128, 128),
        "state": numbers(13),
    }
    check(
        tmp_path,
        "nyu_franka_play_dataset_converted_externally_to_rlds",
        in_one(15, observation),
        {
            "action": action,
            "observation/state": counting(2, 13),
            "language_instruction": ["play with kitchen"] * 2,
            "observation/depth": plain(2, 128, 128, 1, dtype=np.int32),
            "observation/depth_additional_view": np.zeros((2, 128, 128, 1), np.int32),
        },
        depth={"primary": [0.3, 0.301], "secondary": [0, 0]},
        action=[
            [7, 8, 9, 10, 11, 12, 0],
            [107, 108, 109, 110, 111, 112, 1],
        ],
        proprio=[[7, 8, 9, 10, 11, 12], [107, 108, 109, 110, 111, 112]],
        language=["play with kitchen"],
        hz=3,
        metadata_features=FILE,
    )


def test_nyu_rot_is_open_at_zero(tmp_path):
    action = counting(2, 7)
    action[:, 6] = [0, 1]
    check(
        tmp_path,
        "nyu_rot_dataset_converted_externally_to_rlds",
        in_one(7, {"image": Image(84, 84), "state": numbers(7)}),
        {
            "action": action,
            "observation/state": counting(2, 7),
            "language_instruction": ["hang the bag"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[[0, 1, 2, 3, 4, 5, 6], [100, 101, 102, 103, 104, 105, 106]],
        language=["hang the bag"],
        hz=3,
        metadata_features=FILE,
    )


def test_dobbe(tmp_path):
    action = counting(2, 7)
    action[:, 6] = [0.25, 1]
    observation = {
        "gripper": numbers(1),
        "quat": numbers(4),
        "rot": numbers(3),
        "state": numbers(7),
        "wrist_image": Image(256, 256),
        "xyz": numbers(3),
    }
    check(
        tmp_path,
        "dobbe",
        in_one(7, observation),
        {
            "action": action,
            "observation/state": counting(2, 7),
            "language_instruction": ["open the drawer"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 0.25], [100, 101, 102, 103, 104, 105, 1]],
        proprio=[[0, 1, 2, 3, 4, 5, 6], [100, 101, 102, 103, 104, 105, 106]],
        language=["open the drawer"],
        hz=3.75,
        metadata_features=FILE,
    )
