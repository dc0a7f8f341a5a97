"""Data sets from Stanford, from disk to index."""

import numpy as np

from tests.fake_oxe import FILE, check, counting, in_one, in_parts, numbers, plain
from vla_jax.data.write import Image, Tensor


def _ending(width: int, *last: float) -> np.ndarray:
    action = counting(len(last), width)
    action[:, -1] = last
    return action


def test_roboturk_has_no_proprio(tmp_path):
    features = in_parts(
        {
            "gripper_closedness_action": numbers(1),
            "rotation_delta": numbers(3),
            "terminate_episode": numbers(),
            "world_vector": numbers(3),
        },
        {"front_rgb": Image(480, 640)},
    )
    check(
        tmp_path,
        "roboturk",
        features,
        {
            "action/world_vector": counting(2, 3),
            "action/rotation_delta": counting(2, 3) + 50,
            "action/gripper_closedness_action": np.array([[-1.0], [1]]),
            "observation/natural_language_instruction": ["stack cups"] * 2,
        },
        action=[[0, 1, 2, 50, 51, 52, 1], [100, 101, 102, 150, 151, 152, 0]],
        proprio=[[0], [0]],
        language=["stack cups"],
        hz=10,
    )


def test_stanford_hydra(tmp_path):
    features = in_one(
        7,
        {
            "image": Image(240, 320),
            "state": numbers(27),
            "wrist_image": Image(240, 320),
        },
        is_dense=Tensor(np.bool_),
    )
    check(
        tmp_path,
        "stanford_hydra_dataset_converted_externally_to_rlds",
        features,
        {
            "action": _ending(7, 0, 1),
            "observation/state": counting(2, 27),
            "language_instruction": ["hang the towel"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[[0, 1, 2, 7, 8, 9, 24], [100, 101, 102, 107, 108, 109, 124]],
        language=["hang the towel"],
        hz=10,
        metadata_features=FILE,
    )


def test_stanford_kuka_multimodal(tmp_path):
    observation = {
        "contact": numbers(50),
        "depth_image": numbers(128, 128, 1),
        "ee_forces_continuous": numbers(50, 6),
        "ee_orientation": numbers(4),
        "ee_orientation_vel": numbers(3),
        "ee_position": numbers(3),
        "ee_vel": numbers(3),
        "ee_yaw": numbers(4),
        "ee_yaw_delta": numbers(4),
        "image": Image(128, 128),
        "joint_pos": numbers(7),
        "joint_vel": numbers(7),
        "optical_flow": numbers(128, 128, 2),
        "state": numbers(8),
    }
    check(
        tmp_path,
        "stanford_kuka_multimodal_dataset_converted_externally_to_rlds",
        in_one(4, observation),
        {
            "action": _ending(4, 0, 1),
            "observation/ee_position": counting(2, 3),
            "observation/ee_orientation": counting(2, 4) + 10,
            "language_instruction": ["insert the peg"] * 2,
            "observation/depth_image": plain(2, 128, 128, 1) / 1000,
        },
        depth={"primary": [0.3, 0.301]},
        action=[[0, 1, 2, 0, 0, 0, 0], [100, 101, 102, 0, 0, 0, 1]],
        proprio=[[0, 1, 2, 10, 11, 12, 13], [100, 101, 102, 110, 111, 112, 113]],
        language=["insert the peg"],
        hz=20,
    )


def test_stanford_mask_vit(tmp_path):
    observation = {
        "end_effector_pose": numbers(5),
        "finger_sensors": numbers(1),
        "high_bound": numbers(5),
        "image": Image(480, 480),
        "low_bound": numbers(5),
        "state": numbers(15),
    }
    check(
        tmp_path,
        "stanford_mask_vit_converted_externally_to_rlds",
        in_one(5, observation),
        {
            "action": _ending(5, -1, 1),
            "observation/end_effector_pose": counting(2, 5),
            "language_instruction": ["push something"] * 2,
        },
        action=[[0, 1, 2, 3, 0, 0, 1], [100, 101, 102, 103, 0, 0, 0]],
        proprio=[[0, 1, 2, 3, 0, 0, 4], [100, 101, 102, 103, 0, 0, 104]],
        language=["push something"],
        hz=1,
        metadata_features=FILE,
    )


def test_robo_net_joins_columns_and_not_steps(tmp_path):
    observation = {
        "image": Image(240, 320),
        "image1": Image(240, 320),
        "image2": Image(240, 320),
        "state": numbers(5),
    }
    check(
        tmp_path,
        "robo_net",
        in_one(5, observation),
        {
            "action": _ending(5, 0, 1),
            "observation/state": counting(2, 5),
            "language_instruction": ["interact with objects"] * 2,
        },
        action=[[0, 1, 2, 3, 0, 0, 0], [100, 101, 102, 103, 0, 0, 1]],
        proprio=[[0, 1, 2, 3, 0, 0, 4], [100, 101, 102, 103, 0, 0, 104]],
        language=["interact with objects"],
        hz=1,
        metadata_features=FILE,
    )


def test_stanford_robocook_commands_the_width_that_follows(tmp_path):
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # the camera's axes in the base
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3], pose[:3, 3] = turn, [1, 2, 3]
    names = [f"extrinsics_{n}" for n in (1, 2, 3, 4)]
    observation = {"state": numbers(7)}
    observation |= {f"image_{n}": Image(256, 256) for n in (1, 2, 3, 4)}
    observation |= {f"depth_{n}": numbers(256, 256) for n in (1, 2, 3, 4)}
    state, action = counting(3, 7), counting(3, 7)
    state[:, 6] = [0.08, 0.06, 0.02]
    action[:, 6] = [-0.02, -0.04, 0]
    index = check(
        tmp_path,
        "stanford_robocook_converted_externally_to_rlds",
        in_one(7, observation),
        {
            "action": action,
            "observation/state": state,
            "observation/depth_1": plain(3, 256, 256),
            "observation/depth_2": plain(3, 256, 256) + 5,
            "language_instruction": ["pinch the dough"] * 3,
        },
        # The widths reached are 0.06 and 0.02 of 0.08 m; nothing follows the third.
        action=[[0, 1, 2, 3, 4, 5, 0.75], [100, 101, 102, 103, 104, 105, 0.25]],
        proprio=[
            [0, 1, 2, 3, 4, 5, 0.08],
            [100, 101, 102, 103, 104, 105, 0.06],
        ],
        language=["pinch the dough"],
        hz=5,
        depth={"primary": [0.3, 0.301], "secondary": [0.305, 0.306]},
        metadata_features=FILE | {name: numbers(4, 4) for name in names},
        metadata={name: pose for name in names},
    )
    expected = [[0, 1, 0, -2], [-1, 0, 0, 1], [0, 0, 1, -3], [0, 0, 0, 1]]
    for camera in ("primary", "secondary"):
        matrices = index.camera_matrices[camera]
        np.testing.assert_allclose(matrices["extrinsics"], [expected] * 2, atol=1e-6)
        assert "intrinsics" not in matrices
