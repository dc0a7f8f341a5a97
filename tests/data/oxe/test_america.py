"""Data sets from elsewhere in America, and DROID, from disk to index."""

import numpy as np
import pytest

from tests import fake
from tests.fake_oxe import FILE, check, counting, in_one, in_parts, numbers, write
from vla_jax.data.batch import make_batch
from vla_jax.data.source import open_source
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


DROID = {
    "action": numbers(7, dtype=np.float64),
    "action_dict": {
        "cartesian_position": numbers(6, dtype=np.float64),
        "cartesian_velocity": numbers(6, dtype=np.float64),
        "gripper_position": numbers(1, dtype=np.float64),
        "gripper_velocity": numbers(1, dtype=np.float64),
        "joint_position": numbers(7, dtype=np.float64),
        "joint_velocity": numbers(7, dtype=np.float64),
    },
    "discount": numbers(),
    "is_first": Tensor(np.bool_),
    "is_last": Tensor(np.bool_),
    "is_terminal": Tensor(np.bool_),
    "language_instruction": Text(),
    "language_instruction_2": Text(),
    "language_instruction_3": Text(),
    "observation": {
        "cartesian_position": numbers(6, dtype=np.float64),
        "exterior_image_1_left": Image(180, 320),
        "exterior_image_2_left": Image(180, 320),
        "gripper_position": numbers(1, dtype=np.float64),
        "joint_position": numbers(7, dtype=np.float64),
        "wrist_image_left": Image(180, 320),
    },
    "reward": numbers(),
}
DROID_STEPS = {
    "action_dict/cartesian_velocity": counting(2, 6),
    "action_dict/joint_velocity": counting(2, 7) + 20,
    "action_dict/gripper_position": np.array([[0.0], [0.75]]),
    "observation/cartesian_position": counting(2, 6) + 40,
    "observation/joint_position": counting(2, 7) + 60,
    "observation/gripper_position": np.array([[0.25], [0.5]]),
    "language_instruction": ["put the marker in the cup"] * 2,
    "language_instruction_2": ["place the pen in the mug"] * 2,
    "language_instruction_3": ["move the marker"] * 2,
}
DROID_LANGUAGE = [
    "put the marker in the cup",
    "place the pen in the mug",
    "move the marker",
]


def test_droid_is_open_at_zero_and_has_three_instructions(tmp_path):
    check(
        tmp_path,
        "droid",
        DROID,
        DROID_STEPS,
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0.25]],
        proprio=[
            [40, 41, 42, 43, 44, 45, 0.25],
            [140, 141, 142, 143, 144, 145, 0.5],
        ],
        language=DROID_LANGUAGE,
        hz=15,
        metadata_features=FILE | {"recording_folderpath": Text()},
    )


def test_droid_in_joint_space(tmp_path):
    check(
        tmp_path,
        "droid_joint_velocity",
        DROID,
        DROID_STEPS,
        action=[
            [20, 21, 22, 23, 24, 25, 26, 1],
            [120, 121, 122, 123, 124, 125, 126, 0.25],
        ],
        proprio=[
            [60, 61, 62, 63, 64, 65, 66, 0.25],
            [160, 161, 162, 163, 164, 165, 166, 0.5],
        ],
        language=DROID_LANGUAGE,
        kinds="rrrrrrrg",
        hz=15,
        metadata_features=FILE | {"recording_folderpath": Text()},
    )


@pytest.mark.parametrize(
    "task",
    [
        "carrot_in_bowl",
        "pour_corn_in_pot",
        "flip_pot_upright",
        "move_object_onto_plate",
        "knock_object_over",
        "cover_object_with_towel",
    ],
)
def test_tdroid_ignores_the_gripper_velocity_in_its_action(tmp_path, task):
    parts = {"cartesian": 6, "joint": 7, "gripper": 1}
    observation = {
        "wrist_image": Image(270, 360),
        "wrist_depth_image": Image(270, 360, 1),
        "static_image": Image(270, 360),
        "static_depth_image": Image(270, 360, 1),
    }
    observation |= {f"{part}_position": numbers(n) for part, n in parts.items()}
    commands = {
        f"{part}_{kind}": numbers(n)
        for part, n in parts.items()
        for kind in ("position", "velocity")
    }
    given = (
        "action_dict/cartesian_velocity",
        "action_dict/gripper_position",
        "observation/cartesian_position",
        "observation/gripper_position",
    )
    check(
        tmp_path,
        f"tdroid_{task}",
        in_one(7, observation, embedding=False, action_dict=commands),
        {key: DROID_STEPS[key] for key in given}
        | {
            "action": np.full((2, 7), 9),
            "language_instruction": ["knock the pot over"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0.25]],
        proprio=[
            [40, 41, 42, 43, 44, 45, 0.25],
            [140, 141, 142, 143, 144, 145, 0.5],
        ],
        language=["knock the pot over"],
        hz=5,
        metadata_features=FILE | {"recording_folderpath": Text()},
    )


def test_droid_wipe_has_one_instruction_and_the_second_camera(tmp_path):
    features = {k: v for k, v in DROID.items() if not k[-1].isdigit()}
    steps = {k: v for k, v in DROID_STEPS.items() if not k[-1].isdigit()}
    index = check(
        tmp_path,
        "droid_wipe",
        features,
        steps,
        action=[[0, 1, 2, 3, 4, 5, 1], [100, 101, 102, 103, 104, 105, 0.25]],
        proprio=[
            [40, 41, 42, 43, 44, 45, 0.25],
            [140, 141, 142, 143, 144, 145, 0.5],
        ],
        language=["put the marker in the cup"],
        hz=15,
    )
    primary = "steps/observation/exterior_image_2_left"
    assert index.image_features["primary"]["feature"] == primary


def test_every_instruction_of_droid_is_drawn(tmp_path):
    steps = {key: [value[0]] * 30 for key, value in DROID_STEPS.items()}
    metadata = FILE | {"recording_folderpath": Text()}
    folder = write(tmp_path, "droid", DROID, steps, metadata)
    config = fake.data_config(
        datasets=({"path": str(folder), "spec": "droid"},),
        text={"length": 24, "model": ""},
    )
    source = open_source(config)
    batch = make_batch(source, np.zeros(30, np.int32), np.arange(30))
    drawn = {tuple(tokens) for tokens in batch["task"]["tokens"].tolist()}
    expected, _ = source.tokenizer.encode(DROID_LANGUAGE, 24)
    assert drawn == {tuple(tokens) for tokens in expected.tolist()}
