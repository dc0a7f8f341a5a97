"""Data sets from Berkeley, from disk to index."""

import dataclasses

import numpy as np
import pytest

from tests import fake
from tests.fake_oxe import (
    FILE,
    check,
    counting,
    in_one,
    in_parts,
    numbers,
    plain,
    write,
)
from vla_jax.data.image import decode_depth
from vla_jax.data.standardize import DATASETS
from vla_jax.data.write import Image, Tensor, Text

NATURAL = "observation/natural_language_instruction"


def test_berkeley_cable_routing_never_opens(tmp_path):
    features = in_parts(
        {
            "rotation_delta": numbers(3),
            "terminate_episode": numbers(),
            "world_vector": numbers(3),
        },
        {
            "image": Image(128, 128),
            "robot_state": numbers(7),
            "top_image": Image(128, 128),
            "wrist225_image": Image(128, 128),
            "wrist45_image": Image(128, 128),
        },
    )
    check(
        tmp_path,
        "berkeley_cable_routing",
        features,
        {
            "action/world_vector": counting(2, 3),
            "action/rotation_delta": counting(2, 3) + 50,
            "observation/robot_state": counting(2, 7),
            NATURAL: ["route cable"] * 2,
        },
        action=[[0, 1, 2, 50, 51, 52, 0], [100, 101, 102, 150, 151, 152, 0]],
        proprio=[[0, 1, 2, 3, 4, 5, 6], [100, 101, 102, 103, 104, 105, 106]],
        language=["route cable"],
        hz=10,
    )


def test_berkeley_autolab_ur5(tmp_path):
    features = in_parts(
        {
            "gripper_closedness_action": numbers(),
            "rotation_delta": numbers(3),
            "terminate_episode": numbers(),
            "world_vector": numbers(3),
        },
        {
            "hand_image": Image(480, 640),
            "image": Image(480, 640),
            "image_with_depth": Image(480, 640, 1, "png", np.float32),
            "robot_state": numbers(15),
        },
    )
    index = check(
        tmp_path,
        "berkeley_autolab_ur5",
        features,
        {
            "observation/image_with_depth": np.full((3, 480, 640, 1), 0.3, np.float32),
            "action/world_vector": counting(3, 3),
            "action/rotation_delta": counting(3, 3) + 50,
            "action/gripper_closedness_action": np.array([0.0, -1, 1]),
            "observation/robot_state": counting(3, 15),
            NATURAL: ["sweep"] * 3,
        },
        action=[
            [0, 1, 2, 50, 51, 52, 0],
            [100, 101, 102, 150, 151, 152, 1],
            [200, 201, 202, 250, 251, 252, 0],
        ],
        proprio=[
            [6, 7, 8, 9, 10, 11, 12, 13],
            [106, 107, 108, 109, 110, 111, 112, 113],
            [206, 207, 208, 209, 210, 211, 212, 213],
        ],
        language=["sweep"],
        hz=5,
    )
    depth = np.zeros((4, 4), np.float32)
    feature = index.depth_features["primary"]
    decode_depth(index.read_depth("primary", 2), feature, depth, None)
    assert (depth == np.float32(0.3)).all()


def test_berkeley_fanuc_manipulation_measures_its_gripper(tmp_path):
    state = counting(2, 13)
    state[:, 6] = [0, 1]
    features = in_one(
        6,
        {
            "end_effector_state": numbers(7),
            "image": Image(224, 224),
            "state": numbers(13),
            "wrist_image": Image(224, 224),
        },
    )
    check(
        tmp_path,
        "berkeley_fanuc_manipulation",
        features,
        {
            "action": counting(2, 6),
            "observation/state": state,
            "language_instruction": ["close drawer"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[[0, 1, 2, 3, 4, 5, 0], [100, 101, 102, 103, 104, 105, 1]],
        language=["close drawer"],
        hz=10,
        metadata_features=FILE,
    )


def test_berkeley_mvp(tmp_path):
    observation = {
        "gripper": Tensor(np.bool_),
        "hand_image": Image(480, 640),
        "joint_pos": numbers(7),
        "pose": numbers(7),
    }
    action = counting(2, 8)
    action[:, 7] = [1, 0]
    check(
        tmp_path,
        "berkeley_mvp_converted_externally_to_rlds",
        in_one(8, observation),
        {
            "action": action,
            "observation/pose": counting(2, 7),
            "observation/gripper": np.array([True, False]),
            "language_instruction": ["push"] * 2,
        },
        action=[
            [0, 1, 2, 3, 4, 5, 6, 0],
            [100, 101, 102, 103, 104, 105, 106, 1],
        ],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 1],
            [100, 101, 102, 103, 104, 105, 106, 0],
        ],
        language=["push"],
        kinds="rrrrrrrg",
        hz=5,
        metadata_features=FILE,
    )


def test_berkeley_rpt_keeps_every_third_step(tmp_path):
    observation = {
        "gripper": Tensor(np.bool_),
        "hand_image": Image(480, 640),
        "joint_pos": numbers(7),
    }
    joints = np.arange(8)[:, None] ** 2 * np.array([[1, 2, 3, 4, 5, 6, 7]])
    action = np.full((8, 8), 9.0)
    action[:, 7] = [0, 1, 1, 1, 0, 0, 0, 0]
    index = check(
        tmp_path,
        "berkeley_rpt_converted_externally_to_rlds",
        in_one(8, observation),
        {
            "action": action,
            "observation/joint_pos": joints,
            "observation/gripper": np.array([False, False, False, True] + [True] * 4),
            "language_instruction": ["stack"] * 8,
        },
        action=[
            [9, 18, 27, 36, 45, 54, 63, 1],
            [27, 54, 81, 108, 135, 162, 189, 0],
        ],
        proprio=[[0, 0, 0, 0, 0, 0, 0, 0], [9, 18, 27, 36, 45, 54, 63, 1]],
        language=["stack"],
        kinds="rrrrrrrg",
        hz=10,
        metadata_features=FILE,
    )
    # Images of steps 0 and 3: two lie between them.
    first, second = index.image_spans["wrist"].tolist()
    assert second[1] - first[1] > 2 * first[2]


@pytest.mark.parametrize("name", ["fmb", "fmb_dataset"])
def test_fmb_can_draw_the_skill_or_the_task(tmp_path, name):
    cameras = ("side_1", "side_2", "wrist_1", "wrist_2")
    observation = {
        "color_id": numbers(dtype=np.uint8),
        "eef_force": numbers(3),
        "eef_pose": numbers(7),
        "eef_torque": numbers(3),
        "eef_vel": numbers(6),
        "joint_pos": numbers(7),
        "joint_vel": numbers(7),
        "length": Text(),
        "object_id": numbers(dtype=np.uint8),
        "primitive": Text(),
        "shape_id": numbers(dtype=np.uint8),
        "size": Text(),
        "state_gripper_pose": numbers(),
    }
    observation |= {f"image_{camera}": Image(256, 256) for camera in cameras}
    observation |= {f"image_{camera}_depth": numbers(256, 256) for camera in cameras}
    action = counting(2, 7)
    action[:, 6] = [0, 1]
    check(
        tmp_path,
        name,
        in_one(7, observation),
        {
            "action": action,
            "observation/eef_pose": counting(2, 7),
            "observation/state_gripper_pose": np.array([0.25, 0.5]),
            "language_instruction": ["grasp the peg", "insert the peg"],
            "observation/image_side_1_depth": plain(2, 256, 256),
            "observation/image_side_2_depth": plain(2, 256, 256) + 1,
            "observation/image_wrist_1_depth": plain(2, 256, 256) + 2,
            "observation/image_wrist_2_depth": plain(2, 256, 256) + 3,
        },
        depth={
            "primary": [0.3, 0.301],
            "secondary": [0.301, 0.302],
            "wrist": [0.302, 0.303],
        },
        action=[[0, 1, 2, 3, 4, 5, 0], [100, 101, 102, 103, 104, 105, 1]],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 0.25],
            [100, 101, 102, 103, 104, 105, 106, 0.5],
        ],
        language=[
            ["grasp the peg", "assemble the board"],
            ["insert the peg", "assemble the board"],
        ],
        hz=10,
        metadata_features=FILE
        | {
            "episode_language_embedding": numbers(512),
            "episode_language_instruction": Text(),
            "episode_task": Text(),
        },
        metadata={"episode_language_instruction": "assemble the board"},
    )


@pytest.mark.parametrize("name", ["ppgm", "ppgm_static", "ppgm_wrist"])
def test_ppgm_has_the_gripper_of_bridge(tmp_path, name):
    action = counting(4, 7)
    action[:, 6] = [1, 0.5, 0.3, 0]
    observation = {"cartesian_position": numbers(6), "gripper_position": numbers(1)}
    check(
        tmp_path,
        name,
        in_one(7, observation | {"image": Image(8, 8)}, embedding=False),
        {
            "action": action,
            "observation/cartesian_position": counting(4, 6) + 40,
            "observation/gripper_position": np.array([[1.0], [1], [0.5], [0]]),
            "language_instruction": ["pick up the cup"] * 4,
        },
        action=[
            [0, 1, 2, 3, 4, 5, 1],
            [100, 101, 102, 103, 104, 105, 0],
            [200, 201, 202, 203, 204, 205, 0],
            [300, 301, 302, 303, 304, 305, 0],
        ],
        proprio=[
            [40, 41, 42, 43, 44, 45, 1],
            [140, 141, 142, 143, 144, 145, 1],
            [240, 241, 242, 243, 244, 245, 0.5],
            [340, 341, 342, 343, 344, 345, 0],
        ],
        language=["pick up the cup"],
        hz=5,
    )


def test_cameras_of_ppgm_come_from_a_spec_of_ones_own(tmp_path):
    features = in_one(
        7,
        {
            "cartesian_position": numbers(6),
            "gripper_position": numbers(1),
            "side": Image(8, 8),
        },
    )
    folder = write(tmp_path, "ppgm", features, {"action": counting(2, 7)})
    cameras = {"primary": "steps/observation/side"}
    spec = dataclasses.replace(DATASETS["ppgm"], cameras=cameras)
    assert (fake.open_index(folder, spec).image_spans["primary"][:, 2] > 0).all()
