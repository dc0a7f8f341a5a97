"""CALVIN's entries, on the schemas of two public conversions."""

import numpy as np
import pytest

from tests.fake_oxe import check, counting, numbers
from vla_jax.data.oxe.motion import euler_to_quaternion, quaternion_to_euler
from vla_jax.data.write import Image, Tensor, Text


def features(primary, wrist, dtype):
    return {
        "observation": {
            primary: Image(200, 200, encoding="png"),
            wrist: Image(84, 84, encoding="png"),
            "state": numbers(15, dtype=dtype),
        },
        "action": numbers(7, dtype=dtype),
        "language_instruction": Text(),
        "metadata": {"episode_index": Tensor(np.int64)},
        "is_first": Tensor(np.bool_),
        "is_last": Tensor(np.bool_),
        "is_terminal": Tensor(np.bool_),
    }


@pytest.mark.parametrize(
    ("name", "primary", "wrist", "dtype"),
    [
        ("calvin", "rgb_static", "rgb_gripper", np.float32),
        ("calvin_images", "image", "wrist_image", np.float64),
    ],
)
def test_calvin_opens_at_one_and_leaves_joints_out(
    tmp_path, name, primary, wrist, dtype
):
    action, state = counting(2, 7), counting(2, 15)
    action[:, 6], state[:, 14] = [-1, 1], [1, -1]
    state[:, 3:6] = [[0, 0, np.pi / 2], [np.pi / 2, 0, 0]]
    index = check(
        tmp_path,
        name,
        features(primary, wrist, dtype),
        {
            "action": action.astype(dtype),
            "observation/state": state.astype(dtype),
            "language_instruction": ["open the drawer"] * 2,
        },
        action=[[0, 1, 2, 3, 4, 5, 0], [100, 101, 102, 103, 104, 105, 1]],
        proprio=[[0, 1, 2, 0, 0, np.pi / 2, 1], [100, 101, 102, np.pi / 2, 0, 0, 0]],
        language=["open the drawer"],
        hz=30,
        metadata_features={"episode_id": Tensor(np.int64)},
    )
    # From the base of the robot, which stands at (-0.34, -0.46, 0.24), not turned.
    half = np.sqrt(0.5)
    wanted = [
        [0.34, 1.46, 1.76, 0, 0, half, half],
        [100.34, 101.46, 101.76, half, 0, 0, half],
    ]
    np.testing.assert_allclose(index.pose, wanted, atol=1e-4)


def test_angles_become_quaternions_and_back():
    euler = np.array([[0.3, -0.7, 2.9], [-3.0, 1.2, -0.1], [0, 0, 0]])
    quaternion = euler_to_quaternion(euler)
    np.testing.assert_allclose(quaternion_to_euler(quaternion), euler, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(quaternion, axis=1), 1)
    turning = np.array([[np.pi - 0.01, 0, 0], [0.01 - np.pi, 0, 0]])
    one, other = euler_to_quaternion(turning)
    assert one @ other == pytest.approx(1, abs=1e-3)
