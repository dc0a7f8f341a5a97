"""Bridge, in the copies of Berkeley and of Open-X, from disk to index."""

import numpy as np
import pytest

from tests.fake_oxe import FILE, check, in_one, in_parts, numbers
from vla_jax.data.write import Image, Tensor

NATURAL = "observation/natural_language_instruction"
BRIDGE_STATE = np.array(
    [
        [0, 0, 0, 0, 0, 0, 1],
        [1, 2, 3, 0.1, 0.2, 3.1, 0.9],
        [2, 2, 2, 0.3, 0.3, -3.1, 0.5],
        [4, 1, 0, 0.3, 0.1, -3.0, 0.1],
    ]
)
TURN = 2 * np.pi - 6.2


def _bridge_features() -> tuple[dict, dict]:
    observation = {f"image_{n}": Image(256, 256) for n in range(4)}
    features = in_one(7, observation | {"state": numbers(7)})
    metadata = FILE | {
        "episode_id": numbers(dtype=np.int32),
        "has_image_0": Tensor(np.bool_),
        "has_image_1": Tensor(np.bool_),
        "has_image_2": Tensor(np.bool_),
        "has_image_3": Tensor(np.bool_),
        "has_language": Tensor(np.bool_),
    }
    return features, metadata


@pytest.mark.parametrize("name", ["bridge_orig", "bridge_dataset"])
def test_bridge_actions_are_remade_from_reached_states(tmp_path, name):
    features, metadata = _bridge_features()
    # The first step commands nothing; what is commanded later is not what happens.
    action = np.array(
        [
            [0, 0, 0, 0, 0, 0, 0],
            [9, 9, 9, 9, 9, 9, 0.98],
            [9, 9, 9, 9, 9, 9, 0.5],
            [9, 9, 9, 9, 9, 9, 0.02],
        ]
    )
    index = check(
        tmp_path,
        name,
        features,
        {
            "observation/state": BRIDGE_STATE,
            "action": action,
            "language_instruction": ["put the carrot on the plate"] * 4,
        },
        action=[[1, 0, -1, 0.2, 0.1, TURN, 1], [2, -1, -2, 0, -0.2, 0.1, 0]],
        proprio=BRIDGE_STATE[1:3],
        language=["put the carrot on the plate"],
        hz=5,
        metadata_features=metadata,
    )
    assert index.num_episode_steps.tolist() == [2]


def test_bridge_keeps_a_first_step_that_commands_something(tmp_path):
    features, metadata = _bridge_features()
    action = np.full((4, 7), 0.5)
    action[:, 6] = [1, 1, 0.5, 0]
    index = check(
        tmp_path,
        "bridge_orig",
        features,
        {
            "observation/state": BRIDGE_STATE,
            "action": action,
            "language_instruction": ["a", "b", "c", "d"],
        },
        action=[
            [1, 2, 3, 0.1, 0.2, 3.1, 1],
            [1, 0, -1, 0.2, 0.1, TURN, 1],
            [2, -1, -2, 0, -0.2, 0.1, 0],
        ],
        proprio=BRIDGE_STATE[:3],
        language=[["a"], ["b"], ["c"]],
        hz=5,
        metadata_features=metadata,
    )
    assert index.languages == ["a", "b", "c"]


def test_a_bridge_episode_of_one_step_stays_still(tmp_path):
    features, metadata = _bridge_features()
    check(
        tmp_path,
        "bridge_orig",
        features,
        {
            "observation/state": BRIDGE_STATE[3:],
            "action": np.ones((1, 7)),
            "language_instruction": ["wait"],
        },
        action=[[0, 0, 0, 0, 0, 0, 1]],
        proprio=BRIDGE_STATE[3:],
        language=["wait"],
        hz=5,
        metadata_features=metadata,
    )


@pytest.mark.parametrize("name", ["bridge", "bridge_oxe"])
def test_bridge_from_the_open_x_bucket(tmp_path, name):
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
        name,
        features,
        {
            "observation/state": BRIDGE_STATE,
            "action/world_vector": np.array([[0, 0, 0], [9, 9, 9], [9, 9, 9], [9] * 3]),
            "action/open_gripper": np.array([False, True, False, False]),
            NATURAL: ["open the lid"] * 4,
        },
        action=[[1, 0, -1, 0.2, 0.1, TURN, 1], [2, -1, -2, 0, -0.2, 0.1, 0]],
        proprio=BRIDGE_STATE[1:3],
        language=["open the lid"],
        hz=5,
    )
