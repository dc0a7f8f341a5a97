"""Data sets of robots that drive, from disk to index."""

import numpy as np
import pytest

from tests.fake_oxe import FILE, check, counting, in_one, numbers
from vla_jax.data.write import Image

HALF = np.pi / 2


def features(height: int, width: int) -> dict:
    double = {"dtype": np.float64}
    observation = {
        "image": Image(height, width),
        "position": numbers(2, **double),
        "state": numbers(3, **double),
        "yaw": numbers(1, **double),
    }
    more = {"action": numbers(2, **double), "action_angle": numbers(3, **double)}
    return in_one(2, observation) | more


@pytest.mark.parametrize(
    ("name", "size", "hz"),
    [
        ("berkeley_gnm_recon", (120, 160), 3),
        ("berkeley_gnm_cory_hall", (64, 85), 5),
        ("berkeley_gnm_sac_son", (120, 160), 10),
    ],
)
def test_berkeley_gnm_turns_the_short_way(tmp_path, name, size, hz):
    moved = np.array([[0.5, 0.1, 0.2], [0.25, 0, 6.2], [0, 0, 0]])
    check(
        tmp_path,
        name,
        features(*size),
        {
            "action": moved[:, :2],
            "action_angle": moved,
            "observation/state": counting(3, 3),
            "language_instruction": ["Navigate to the goal."] * 3,
        },
        action=[
            [0.5, 0.1, 0, 0, 0, 0.2, 0],
            [0.25, 0, 0, 0, 0, 6.2 - 2 * np.pi, 0],
        ],
        proprio=[[0, 1, 2], [100, 101, 102]],
        language=["Navigate to the goal."],
        hz=hz,
        metadata_features=FILE,
    )


def test_gnm_dataset_acts_in_the_robots_frame_every_third_step(tmp_path):
    # Up along y for three steps, facing up; then to the left, facing left.
    position = np.array(
        [[0, 0], [0, 1], [0, 2], [0, 3], [-1, 3], [-2, 3], [-3, 3], [-3, 3]]
    )
    yaw = np.array([HALF, HALF, HALF, np.pi, np.pi, np.pi, -np.pi, -np.pi])
    steps = np.diff(position, axis=0, append=position[-1:]) / 2  # units of two metres
    check(
        tmp_path,
        "gnm_dataset",
        features(128, 128),
        {
            "action": steps,
            "observation/position": position,
            "observation/yaw": yaw[:, None],
            "observation/state": np.concatenate([position, yaw[:, None]], axis=1),
            "language_instruction": ["Navigate to the goal."] * 8,
        },
        action=[[1.5, 0, 0, 0, 0, HALF, 0], [1.5, 0, 0, 0, 0, 0, 0]],
        proprio=[[0, 0, HALF], [0, 3, np.pi]],
        language=["Navigate to the goal."],
        hz=4 / 3,
        metadata_features=FILE,
    )


def test_gnm_dataset_keeps_robots_that_do_not_move(tmp_path):
    state = np.zeros((4, 3))
    check(
        tmp_path,
        "gnm_dataset",
        features(128, 128),
        {
            "action": state[:, :2],
            "observation/state": state,
            "language_instruction": ["Navigate to the goal."] * 4,
        },
        action=[[0] * 7],
        proprio=[[0] * 3],
        language=["Navigate to the goal."],
        hz=4 / 3,
    )
