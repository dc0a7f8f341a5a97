"""Data sets from Austin, from disk to index."""

import numpy as np
import pytest

from tests.fake_oxe import FILE, check, counting, in_one, in_parts, numbers
from vla_jax.data.write import Image

ACTION = counting(3, 7)
ACTION[:, 6] = [-1, 0.25, 1]
# Open at -1, closed at 1.
OPENING = [
    [0, 1, 2, 3, 4, 5, 1],
    [100, 101, 102, 103, 104, 105, 0.75],
    [200, 201, 202, 203, 204, 205, 0],
]
FIRST_EIGHT = [
    [0, 1, 2, 3, 4, 5, 6, 7],
    [100, 101, 102, 103, 104, 105, 106, 107],
    [200, 201, 202, 203, 204, 205, 206, 207],
]


def test_viola(tmp_path):
    features = in_parts(
        {
            "gripper_closedness_action": numbers(),
            "rotation_delta": numbers(3),
            "terminate_episode": numbers(),
            "world_vector": numbers(3),
        },
        {
            "agentview_rgb": Image(224, 224),
            "ee_states": numbers(16),
            "eye_in_hand_rgb": Image(224, 224),
            "gripper_states": numbers(1),
            "joint_states": numbers(7),
        },
    )
    check(
        tmp_path,
        "viola",
        features,
        {
            "action/world_vector": ACTION[:, :3],
            "action/rotation_delta": ACTION[:, 3:6],
            "action/gripper_closedness_action": ACTION[:, 6],
            "observation/joint_states": counting(3, 7),
            "observation/gripper_states": np.array([[7], [107], [207]]),
            "observation/natural_language_instruction": ["make coffee"] * 3,
        },
        action=OPENING,
        proprio=FIRST_EIGHT,
        language=["make coffee"],
        hz=20,
    )


@pytest.mark.parametrize(
    "name", ["austin_buds_dataset_converted_externally_to_rlds", "utaustin_mutex"]
)
def test_buds_and_mutex(tmp_path, name):
    observation = {
        "image": Image(128, 128),
        "state": numbers(24),
        "wrist_image": Image(128, 128),
    }
    check(
        tmp_path,
        name,
        in_one(7, observation),
        {
            "action": ACTION,
            "observation/state": counting(3, 24),
            "language_instruction": ["lift the lid"] * 3,
        },
        action=OPENING,
        proprio=FIRST_EIGHT,
        language=["lift the lid"],
        hz=20,
        metadata_features=FILE,
    )


@pytest.mark.parametrize(
    ("name", "size", "more"),
    [
        ("austin_sailor_dataset_converted_externally_to_rlds", 128, {}),
        (
            "austin_sirius_dataset_converted_externally_to_rlds",
            84,
            {"action_mode": numbers(1), "intv_label": numbers(1)},
        ),
    ],
)
def test_sailor_and_sirius(tmp_path, name, size, more):
    observation = {
        "image": Image(size, size),
        "state": numbers(8),
        "state_ee": numbers(16),
        "state_gripper": numbers(1),
        "state_joint": numbers(7),
        "wrist_image": Image(size, size),
    }
    check(
        tmp_path,
        name,
        in_one(7, observation, **more),
        {
            "action": ACTION,
            "observation/state": counting(3, 8),
            "language_instruction": ["insert the gear"] * 3,
        },
        action=OPENING,
        proprio=FIRST_EIGHT,
        language=["insert the gear"],
        hz=20,
        metadata_features=FILE,
    )
