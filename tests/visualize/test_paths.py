import numpy as np

from vla_jax.visualize.paths import fit_motion, follow, project

RNG = np.random.default_rng(0)
KINDS = ("relative",) * 3 + ("gripper",)


def walk(gain=0.01):
    """Two episodes of a hand that an action of 1 moves by `gain` metres."""
    action = RNG.normal(size=(20, 4))
    steps = np.concatenate([np.zeros((1, 3)), gain * action[:-1, :3]])
    first = np.zeros(20, bool)
    first[[0, 10]] = True
    position = np.cumsum(np.where(first[:, None], 0.5, steps), 0)
    return position, action, first


def test_units_of_relative_actions_are_found():
    motion = fit_motion(*walk(), KINDS)
    assert motion.relative
    expected = [[0.01, 0, 0], [0, 0.01, 0], [0, 0, 0.01], [0, 0, 0]]
    np.testing.assert_allclose(motion.matrix, expected, atol=1e-9)
    path = follow(motion, np.zeros(3), np.array([[1.0, 0, 0, 1], [1.0, 2, 0, 1]]))
    np.testing.assert_allclose(
        path, [[0, 0, 0], [0.01, 0, 0], [0.02, 0.02, 0]], atol=1e-8
    )


def test_absolute_actions_say_where_the_hand_goes():
    target = RNG.normal(size=(9, 3))
    position = np.concatenate([np.zeros((1, 3)), target[:-1] + 0.1])
    first = np.arange(9) == 0
    motion = fit_motion(position, target, first, ("absolute",) * 3)
    path = follow(motion, np.zeros(3), np.array([[1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(path, [[0, 0, 0], [1.1, 2.1, 3.1]], atol=1e-8)


def test_actions_that_do_not_move_the_hand_are_not_drawn():
    position, action, first = walk()
    noise = RNG.normal(size=action.shape)
    assert fit_motion(position, noise, first, KINDS) is None
    assert fit_motion(position, action, first, ("gripper",) * 4) is None
    mixed = ("relative", "absolute", "relative")
    assert fit_motion(position, action, first, mixed) is None


def test_projection_of_points_before_and_behind_the_camera():
    intrinsics = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    extrinsics = np.eye(4)
    extrinsics[2, 3] = 1.0  # the base lies one metre in front of the camera
    points = np.array([[0.0, 0, 1], [0.2, -0.1, 0], [0, 0, -2]])
    pixels = project(points, intrinsics, extrinsics)
    np.testing.assert_allclose(pixels, [[50, 40], [70, 30], [np.nan, np.nan]])
