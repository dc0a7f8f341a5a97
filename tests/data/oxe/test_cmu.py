"""Data sets from Carnegie Mellon, from disk to index."""

import math

import numpy as np

from tests.fake_oxe import FILE, check, counting, in_one, in_parts, numbers
from vla_jax.data.write import Image, Tensor

HALF = math.sqrt(0.5)


def test_toto(tmp_path):
    features = in_parts(
        {
            "open_gripper": Tensor(np.bool_),
            "rotation_delta": numbers(3),
            "terminate_episode": numbers(),
            "world_vector": numbers(3),
        },
        {"image": Image(480, 640), "state": numbers(7)},
    )
    check(
        tmp_path,
        "toto",
        features,
        {
            "action/world_vector": counting(2, 3),
            "action/rotation_delta": counting(2, 3) + 50,
            "action/open_gripper": np.array([True, False]),
            "observation/state": counting(2, 7),
            "observation/natural_language_instruction": ["pour"] * 2,
        },
        action=[[0, 1, 2, 50, 51, 52, 1], [100, 101, 102, 150, 151, 152, 0]],
        proprio=[[0, 1, 2, 3, 4, 5, 6], [100, 101, 102, 103, 104, 105, 106]],
        language=["pour"],
        hz=30,
    )


def test_cmu_stretch(tmp_path):
    action = counting(2, 8)
    action[:, 6:] = [[0, 9], [1, 9]]
    check(
        tmp_path,
        "cmu_stretch",
        in_one(8, {"image": Image(128, 128), "state": numbers(4)}),
        {
            "action": action,
            "observation/state": counting(2, 4),
            "language_instruction": ["open the cabinet"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 0], [100, 101, 102, 103, 104, 105, 1]],
        proprio=[[0, 1, 2, 0, 0, 0, 3], [100, 101, 102, 0, 0, 0, 103]],
        language=["open the cabinet"],
        hz=10,
        metadata_features=FILE,
    )


def test_cmu_franka_exploration(tmp_path):
    action = counting(2, 8)
    action[:, 6:] = [[0, 9], [1, 9]]
    features = in_one(
        8,
        {"highres_image": Image(480, 640), "image": Image(64, 64)},
        structured_action=numbers(8),
    )
    check(
        tmp_path,
        "cmu_franka_exploration_dataset_converted_externally_to_rlds",
        features,
        {"action": action, "language_instruction": ["lift the knife"] * 2},
        action=[[0, 1, 2, 3, 4, 5, 0], [100, 101, 102, 103, 104, 105, 1]],
        proprio=[[0], [0]],
        language=["lift the knife"],
        hz=10,
        metadata_features=FILE,
    )


def test_cmu_play_fusion_has_the_gripper_before_the_end(tmp_path):
    action = np.array(
        [
            [0.1, 0.2, 0.3, 0, 0, HALF, HALF, 1, 0],
            [0.4, 0.5, 0.6, HALF, 0, 0, HALF, 0, 1],
        ]
    )
    check(
        tmp_path,
        "cmu_play_fusion",
        in_one(9, {"image": Image(128, 128), "state": numbers(8)}),
        {
            "action": action,
            "observation/state": counting(2, 8),
            "language_instruction": ["pick up the plate"] * 2,
        },
        action=[
            [0.1, 0.2, 0.3, 0, 0, math.pi / 2, 1],
            [0.4, 0.5, 0.6, math.pi / 2, 0, 0, 0],
        ],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 7],
            [100, 101, 102, 103, 104, 105, 106, 107],
        ],
        language=["pick up the plate"],
        hz=5,
        metadata_features=FILE,
    )


def test_cmu_playing_with_food_puts_the_real_part_first(tmp_path):
    action = np.array(
        [
            [0.1, 0.2, 0.3, 1, 0, 0, 0, 0],
            [0.4, 0.5, 0.6, HALF, 0, 0, HALF, 1],
        ]
    )
    observation = {
        "finger_vision_1": Image(480, 640, encoding="png"),
        "finger_vision_2": Image(480, 640, encoding="png"),
        "image": Image(480, 640, encoding="png"),
        "state": numbers(6),
    }
    check(
        tmp_path,
        "cmu_playing_with_food",
        in_one(8, observation),
        {
            "action": action,
            "observation/state": counting(2, 6),
            "language_instruction": ["Grasp the apple slice."] * 2,
        },
        action=[
            [0.1, 0.2, 0.3, 0, 0, 0, 0],
            [0.4, 0.5, 0.6, 0, 0, math.pi / 2, 1],
        ],
        proprio=[[0, 1, 2, 3, 4, 5], [100, 101, 102, 103, 104, 105]],
        language=["Grasp the apple slice."],
        kinds="aaaaaag",
        hz=10,
        metadata_features=FILE,
    )


def test_iamlab_cmu_pickup_insert(tmp_path):
    action = np.array(
        [
            [0.5, 0.1, 0.2, 1, 0, 0, 0, 1],
            [0.6, 0.1, 0.2, 0, 0, HALF, HALF, 0],
        ]
    )
    observation = {
        "image": Image(360, 640),
        "state": numbers(20),
        "wrist_image": Image(240, 320),
    }
    check(
        tmp_path,
        "iamlab_cmu_pickup_insert_converted_externally_to_rlds",
        in_one(8, observation),
        {
            "action": action,
            "observation/state": counting(2, 20),
            "language_instruction": ["insert the block"] * 2,
        },
        action=[
            [0.5, 0.1, 0.2, math.pi, 0, 0, 1],
            [0.6, 0.1, 0.2, 0, 0, math.pi / 2, 0],
        ],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 7],
            [100, 101, 102, 103, 104, 105, 106, 107],
        ],
        language=["insert the block"],
        kinds="aaaaaag",
        hz=20,
        metadata_features=FILE,
    )
