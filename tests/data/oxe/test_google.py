"""Data sets of Google's robots, from disk to index."""

from types import SimpleNamespace

import numpy as np

from tests.fake_oxe import check, counting, in_parts, numbers
from vla_jax.data.standardize import DATASETS, standardize_episode
from vla_jax.data.write import Image, Tensor

NATURAL = "observation/natural_language_instruction"
RT1_ACTION = {
    "base_displacement_vector": numbers(2),
    "base_displacement_vertical_rotation": numbers(1),
    "gripper_closedness_action": numbers(1),
    "rotation_delta": numbers(3),
    "terminate_episode": numbers(3, dtype=np.int32),
    "world_vector": numbers(3),
}
MOVES = {
    "action/world_vector": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) / 8,
    "action/rotation_delta": np.array([[3, 2, 1], [6, 5, 4], [9, 8, 7]]) / 8,
    "action/gripper_closedness_action": np.array([[0.0], [1], [0]]),
}
# Open until it closes at the second step.
MOVED = (
    np.array([[1, 2, 3, 3, 2, 1, 8], [4, 5, 6, 6, 5, 4, 0], [7, 8, 9, 9, 8, 7, 0]]) / 8
)


def test_fractal20220817_data(tmp_path):
    observation = {
        "base_pose_tool_reached": numbers(7),
        "gripper_closed": numbers(1),
        "gripper_closedness_commanded": numbers(1),
        "height_to_bottom": numbers(1),
        "image": Image(256, 320),
        "orientation_box": numbers(2, 3),
        "orientation_start": numbers(4),
        "robot_orientation_positions_box": numbers(3, 3),
        "rotation_delta_to_go": numbers(3),
        "src_rotation": numbers(4),
        "vector_to_go": numbers(3),
        "workspace_bounds": numbers(3, 3),
    }
    check(
        tmp_path,
        "fractal20220817_data",
        in_parts(RT1_ACTION, observation),
        MOVES
        | {
            "observation/base_pose_tool_reached": counting(3, 7),
            "observation/gripper_closed": np.array([[0.0], [0.5], [1]]),
            NATURAL: ["pick apple"] * 3,
        },
        action=MOVED,
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 0],
            [100, 101, 102, 103, 104, 105, 106, 0.5],
            [200, 201, 202, 203, 204, 205, 206, 1],
        ],
        language=["pick apple"],
        hz=3,
    )


def test_kuka_has_a_compressed_state(tmp_path):
    observation = {
        "clip_function_input/base_pose_tool_reached": Tensor(
            np.float32, (7,), encoding="zlib"
        ),
        "clip_function_input/workspace_bounds": Tensor(
            np.float32, (3, 3), encoding="zlib"
        ),
        "gripper_closed": Tensor(np.float32, (1,), encoding="zlib"),
        "height_to_bottom": Tensor(np.float32, (1,), encoding="zlib"),
        "image": Image(512, 640),
        "task_id": Tensor(np.float32, (1,), encoding="zlib"),
    }
    check(
        tmp_path,
        "kuka",
        in_parts(RT1_ACTION, observation),
        MOVES
        | {
            "observation/clip_function_input/base_pose_tool_reached": counting(3, 7),
            "observation/gripper_closed": np.array([[0.0], [0.25], [1]]),
            NATURAL: ["pick anything"] * 3,
        },
        action=MOVED,
        proprio=[
            [0, 1, 2, 3, 4, 5, 6, 0],
            [100, 101, 102, 103, 104, 105, 106, 0.25],
            [200, 201, 202, 203, 204, 205, 206, 1],
        ],
        language=["pick anything"],
        hz=10,
    )


def test_kuka_tells_which_attempts_succeed():
    state = "steps/observation/clip_function_input/base_pose_tool_reached"
    raw = SimpleNamespace(
        text={f"steps/{NATURAL}": [b"pick anything"]},
        num_steps=1,
        metadata={"success": np.bool_(False)},
        arrays={
            state: np.zeros((1, 7)),
            "steps/observation/gripper_closed": np.zeros((1, 1)),
            "steps/action/world_vector": np.zeros((1, 3)),
            "steps/action/rotation_delta": np.zeros((1, 3)),
            "steps/action/gripper_closedness_action": np.zeros((1, 1)),
        },
    )
    assert standardize_episode(DATASETS["kuka"], raw).success is False
    raw.metadata = {}
    assert standardize_episode(DATASETS["kuka"], raw).success is None


def test_bc_z_takes_the_first_of_ten_actions(tmp_path):
    features = in_parts(
        {
            "future/axis_angle_residual": numbers(30),
            "future/target_close": numbers(10, dtype=np.int64),
            "future/xyz_residual": numbers(30),
        },
        {
            "episode_success": numbers(),
            "image": Image(171, 213),
            "present/autonomous": numbers(dtype=np.int64),
            "present/axis_angle": numbers(3),
            "present/intervention": numbers(dtype=np.int64),
            "present/sensed_close": numbers(1),
            "present/xyz": numbers(3),
            "sequence_length": numbers(dtype=np.int64),
        },
    )
    check(
        tmp_path,
        "bc_z",
        features,
        {
            "action/future/xyz_residual": counting(2, 30),
            "action/future/axis_angle_residual": counting(2, 30) + 1000,
            "action/future/target_close": np.array([[0] + [1] * 9, [1] + [0] * 9]),
            "observation/present/xyz": counting(2, 3),
            "observation/present/axis_angle": counting(2, 3) + 10,
            "observation/present/sensed_close": np.array([[0.25], [0.5]]),
            NATURAL: ["wipe tray"] * 2,
        },
        action=[
            [0, 1, 2, 1000, 1001, 1002, 1],
            [100, 101, 102, 1100, 1101, 1102, 0],
        ],
        proprio=[[0, 1, 2, 10, 11, 12, 0.25], [100, 101, 102, 110, 111, 112, 0.5]],
        language=["wipe tray"],
        hz=10,
    )


def test_language_table_spells_instructions_in_numbers(tmp_path):
    features = {
        "action": numbers(2),
        "is_first": Tensor(np.bool_),
        "is_last": Tensor(np.bool_),
        "is_terminal": Tensor(np.bool_),
        "observation": {
            "effector_target_translation": numbers(2),
            "effector_translation": numbers(2),
            "instruction": numbers(512, dtype=np.int32),
            "rgb": Image(360, 640),
        },
        "reward": numbers(),
    }
    instruction = np.zeros((2, 512), np.int32)
    instruction[:, :9] = [112, 117, 115, 104, 32, 115, 116, 97, 114]
    check(
        tmp_path,
        "language_table",
        features,
        {
            "action": np.array([[0.5, -0.5], [0.25, 0]]),
            "observation/effector_translation": np.array([[1.0, 2], [3, 4]]),
            "observation/instruction": instruction,
        },
        action=[[0.5, -0.5, 0, 0, 0, 0, 1], [0.25, 0, 0, 0, 0, 0, 1]],
        proprio=[[1, 2], [3, 4]],
        language=["push star"],
        hz=10,
    )
