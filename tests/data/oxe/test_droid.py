"""DROID and the sets recorded as it was, from disk to index."""

import numpy as np
import pytest

from tests import fake
from tests.fake_oxe import FILE, check, counting, in_one, numbers, write
from vla_jax.data.batch import make_batch
from vla_jax.data.source import open_source
from vla_jax.data.write import Image, Tensor, Text

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
