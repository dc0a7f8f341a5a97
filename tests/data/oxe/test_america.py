"""Data sets from elsewhere in America, and DROID, from disk to index."""

import numpy as np
import pytest

from tests.fake_oxe import FILE, check, counting, in_one, in_parts, numbers
from vla_jax.data.write import Image, Tensor, Text


def test_jaco_play_does_not_rotate(tmp_path):
    features = in_parts(
        {
            "gripper_closedness_action": numbers(1),
            "terminate_episode": numbers(3, dtype=np.int32),
            "world_vector": numbers(3),
        },
        {
            "end_effector_cartesian_pos": numbers(7),
            "end_effector_cartesian_velocity": numbers(6),
            "image": Image(224, 224),
            "image_wrist": Image(224, 224),
            "joint_pos": numbers(8),
        },
    )
    check(
        tmp_path,
        "jaco_play",
        features,
        {
            "action/world_vector": counting(3, 3),
            "action/gripper_closedness_action": np.array([[0.0], [-1], [1]]),
            "observation/end_effector_cartesian_pos": counting(3, 7),
            "observation/natural_language_instruction": ["pick up the milk"] * 3,
        },
        action=[
            [0, 1, 2, 0, 0, 0, 0],
            [100, 101, 102, 0, 0, 0, 1],
            [200, 201, 202, 0, 0, 0, 0],
        ],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6],
            [100, 101, 102, 103, 104, 105, 106],
            [200, 201, 202, 203, 204, 205, 206],
        ],
        language=["pick up the milk"],
        hz=10,
    )


def test_ucsd_kitchen(tmp_path):
    action = counting(2, 8)
    action[:, 6:] = [[1, 9], [0, 9]]
    check(
        tmp_path,
        "ucsd_kitchen_dataset_converted_externally_to_rlds",
        in_one(8, {"image": Image(480, 640), "state": numbers(21)}),
        {
            "action": action,
            "observation/state": counting(2, 21),
            "language_instruction": ["open the oven"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[[0, 1, 2, 3, 4, 5, 6], [100, 101, 102, 103, 104, 105, 106]],
        language=["open the oven"],
        kinds="aaaaaag",
        hz=2,
        metadata_features=FILE,
    )


@pytest.mark.parametrize("success", [True, False])
def test_ucsd_pick_and_place_tells_success(tmp_path, success):
    action = counting(2, 4)
    action[:, 3] = [1, -1]
    index = check(
        tmp_path,
        "ucsd_pick_and_place_dataset_converted_externally_to_rlds",
        in_one(4, {"image": Image(224, 224), "state": numbers(7)}),
        {
            "action": action,
            "observation/state": counting(2, 7),
            "language_instruction": ["place the pot"] * 2,
        },
        action=[[0, 1, 2, 0, 0, 0, 1], [100, 101, 102, 0, 0, 0, 0]],
        proprio=[[0, 1, 2, 3, 4, 5, 6], [100, 101, 102, 103, 104, 105, 106]],
        language=["place the pot"],
        hz=3,
        metadata_features=FILE
        | {
            "disclaimer": Text(),
            "n_transitions": numbers(dtype=np.int32),
            "success": Tensor(np.bool_),
            "success_labeled_by": Text(),
        },
        metadata={"success": success},
    )
    assert index.success.tolist() == [int(success)]


def test_uiuc_d3field(tmp_path):
    observation = {"state": numbers(4, 4)}
    observation |= {f"image_{n}": Image(360, 640) for n in (1, 2, 3, 4)}
    observation |= {
        f"depth_{n}": Image(360, 640, 1, "png", np.uint16) for n in (1, 2, 3, 4)
    }
    index = check(
        tmp_path,
        "uiuc_d3field",
        in_one(3, observation),
        {
            "action": counting(2, 3),
            "observation/state": counting(2, 16).reshape(2, 4, 4),
            "language_instruction": ["tidy the desk"] * 2,
        },
        action=[[0, 1, 2, 0, 0, 0, 0], [100, 101, 102, 0, 0, 0, 0]],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111],
        ],
        language=["tidy the desk"],
        hz=1,
        metadata_features=FILE,
    )
    assert sorted(index.depth_spans) == ["primary", "secondary"]


def test_asu_table_top_displaces_by_its_deltas(tmp_path):
    objects = ("EE", "bottle", "bread", "coke", "cube", "milk", "pepsi")
    action = counting(2, 7) + 500
    action[:, 6] = [1, 0]
    check(
        tmp_path,
        "asu_table_top_converted_externally_to_rlds",
        in_one(
            7,
            {
                "image": Image(224, 224),
                "state": numbers(7),
                "state_vel": numbers(7),
            },
            action_delta=numbers(7),
            action_inst=Text(),
            goal_object=Text(),
            ground_truth_states={name: numbers(6) for name in objects},
        ),
        {
            "action": action,
            "action_delta": counting(2, 7),
            "ground_truth_states/EE": counting(2, 6) + 40,
            "observation/state": counting(2, 7) / 1000,
            "language_instruction": ["pick the milk"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0]],
        proprio=[
            [40, 41, 42, 43, 44, 45, 0.006],
            [140, 141, 142, 143, 144, 145, 0.106],
        ],
        language=["pick the milk"],
        hz=12.5,
        metadata_features=FILE,
    )


@pytest.mark.parametrize("name", ["roboset", "robo_set"])
def test_roboset_has_goals_of_joints(tmp_path, name):
    action = counting(2, 8)
    action[:, 7] = [-1, 1]
    observation = {
        "image_left": Image(240, 424),
        "image_right": Image(240, 424),
        "image_wrist": Image(240, 424),
        "state": numbers(8),
    }
    check(
        tmp_path,
        name,
        in_one(8, observation),
        {
            "action": action,
            "observation/state": counting(2, 8),
            "language_instruction": ["cap the jar"] * 2,
        },
        action=[
            [0, 1, 2, 3, 4, 5, 6, 1],
            [100, 101, 102, 103, 104, 105, 106, 0],
        ],
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 7],
            [100, 101, 102, 103, 104, 105, 106, 107],
        ],
        language=["cap the jar"],
        kinds="aaaaaaag",
        hz=5,
        metadata_features=FILE,
    )
