"""ALOHA through the standard interface: seeds, experts, cameras, disturbances."""

import importlib.util

import numpy as np
import pytest

# Not importorskip: that would import MuJoCo before its OpenGL backend is chosen.
if importlib.util.find_spec("gym_aloha") is None:
    pytest.skip("gym-aloha is not installed", allow_module_level=True)

from tests.own_process import in_own_process
from vla_jax.simulation.aloha import INSTRUCTIONS
from vla_jax.simulation.environment import (
    list_stages,
    list_tasks,
    list_variants,
    make_environment,
)
from vla_jax.simulation.rendering import extrinsics, intrinsics, project


def _make(task="transfer_cube", **options):
    return make_environment("aloha", task, **{"cameras": (), **options})


def _play(environment, seed, num_steps):
    """States of an episode in which both arms close their grippers at rest."""
    environment.reset(seed)
    states = [environment.object_poses()]
    action = np.array([0, -0.96, 1.16, 0, -0.3, 0, 0.0] * 2)
    for _ in range(num_steps):
        observation, _, _ = environment.step(action)
        states.append(environment.object_poses())
    return np.array(states), observation["proprio"]


@pytest.mark.parametrize("task", ["insertion", "transfer_cube"])
def test_the_expert_passes_every_stage_and_ends_in_success(task):
    environment = _make(task)
    environment.reset(3)
    rewards = []
    for _ in range(environment.demonstration):
        _, reward, success = environment.step(environment.expert_action())
        rewards.append(reward)
        assert success == (reward == 4)
    assert rewards[-1] == 4
    assert {1.0, 2.0} <= set(rewards)


def test_the_seed_alone_pins_the_episode():
    environment = _make("insertion")
    first, joints = _play(environment, 11, 10)
    words = environment.instruction
    _play(environment, 12, 25)
    again, joints_again = _play(environment, 11, 10)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(joints, joints_again)
    assert environment.instruction == words
    assert first.shape == (11, 2, 7)
    np.testing.assert_allclose(first[0, :, 3:], [[0, 0, 0, 1]] * 2)  # xyzw


def test_tasks_stages_and_phrasings_are_listed():
    assert list_tasks("aloha") == ("insertion", "transfer_cube")
    assert list_stages("aloha", "insertion")[-1] == "inserted"
    assert list_stages("metaworld", "reach") == ()
    assert "distractors" in list_variants("aloha")
    assert list_variants("metaworld") == ("none",)
    seen = set()
    for task in list_tasks("aloha"):
        assert len(INSTRUCTIONS[task]) >= 4
        assert not seen & set(INSTRUCTIONS[task])
        seen |= set(INSTRUCTIONS[task])
    environment = _make()
    words = set()
    for seed in range(25):
        environment.reset(seed, render=False)
        words.add(environment.instruction)
    assert words == set(environment.instructions)


def test_targets_beyond_one_are_not_clipped_to_a_box():
    environment = _make()
    action = np.full(14, 1.7)
    np.testing.assert_array_equal(
        environment.native_action(action), action.astype(np.float32)
    )


def test_mistakes_are_named_with_the_alternatives():
    with pytest.raises(ValueError, match=r"Unknown aloha task 'cube'.*transfer_cube"):
        _make("cube")
    with pytest.raises(ValueError, match=r"Unknown camera 'top'.*primary"):
        _make(cameras=("top",))
    with pytest.raises(ValueError, match=r"Unknown aloha variant 'dark'.*light"):
        _make(variant="dark")
    with pytest.raises(ValueError, match=r"Unknown metaworld variant 'light'"):
        make_environment("metaworld", "reach", cameras=(), variant="light")
    with pytest.raises(ValueError, match=r"metaworld gives no depth"):
        make_environment("metaworld", "reach", cameras=(), depth=True)
    with pytest.raises(ValueError, match=r"horizon is 0"):
        _make(horizon=0)
    environment = _make()
    with pytest.raises(ValueError, match="before reset"):
        environment.step(np.zeros(14))
    environment.reset(0)
    with pytest.raises(ValueError, match=r"shape \(7,\).*\(14,\)"):
        environment.step(np.zeros(7))


def test_matrices_of_a_camera_that_looks_straight_down():
    # 480 rows of 78 degrees: 240 / tan(39 degrees).
    matrix = intrinsics(78.0, (480, 640))
    np.testing.assert_allclose(
        matrix, [[296.3753, 0, 320], [0, 296.3753, 240], [0, 0, 1]], atol=1e-3
    )
    pose = extrinsics(np.array([0, 0.6, 0.8]), np.eye(3))
    points = np.array([[0, 0.6, 0.0], [0.1, 0.6, 0.0], [0, 0.7, 0.0], [0, 0.6, 1.0]])
    step = 0.1 * 296.3753 / 0.8
    np.testing.assert_allclose(
        project(points, matrix, pose),
        [[320, 240], [320 + step, 240], [320, 240 - step], [np.nan] * 2],
        atol=1e-3,
    )


@pytest.mark.parametrize(
    "variant", ["distractors", "light", "interference", "table_color"]
)
def test_what_is_only_seen_does_not_change_the_physics(variant):
    plain, joints = _play(_make("insertion"), 4, 20)
    varied, other_joints = _play(_make("insertion", variant=variant), 4, 20)
    np.testing.assert_array_equal(plain, varied)
    np.testing.assert_array_equal(joints, other_joints)


def test_a_push_moves_one_object_within_its_range():
    lengths = []
    for seed in range(4):
        still, _ = _play(_make("insertion"), seed, 90)
        pushed, _ = _play(_make("insertion", variant="push"), seed, 90)
        ways = np.linalg.norm((pushed - still)[-1, :, :2], axis=-1)
        assert (ways > 0.039).sum() == 1 and ways.max() < 0.081
        assert pushed[-1, :, 1].min() > 0.38 and pushed[-1, :, 1].max() < 0.62
        lengths.append(ways.max())
    assert len(set(lengths)) == 4


@in_own_process
def test_the_red_cube_is_where_its_projection_says():
    size = (120, 160)
    cameras = ("primary", "secondary")
    environment = _make(cameras=cameras, image_size=size, depth=True)
    observation = environment.reset(3)
    for camera in cameras:
        picture = observation["image"][camera].astype(int)
        assert picture.shape == (120, 160, 3)
        red = (picture[..., 0] > 100) & (picture[..., 1:].max(-1) < 60)
        rows, columns = np.nonzero(red)
        assert len(rows) >= 8
        center = np.array([columns.mean(), rows.mean()]) + 0.5
        matrices = environment.camera_matrices(camera)
        pixel = project(environment.object_poses()[0, :3], *matrices)
        assert np.linalg.norm(pixel - center) < 2
    # The cube starts at 5 cm, so its upper face is 73 cm below the camera on top.
    depth = observation["depth"]["primary"]
    assert depth.shape == (120, 160) and depth.dtype == np.float32
    pixel = project(
        environment.object_poses()[0, :3], *environment.camera_matrices("primary")
    )
    column, row = pixel.astype(int)
    assert abs(depth[row, column] - 0.73) < 0.005
    skipped, _, _ = environment.step(np.zeros(14), render=False)
    assert skipped["image"] == {} and skipped["depth"] == {}
    environment.close()


@in_own_process
def test_disturbances_are_seen_and_pinned_by_the_seed():
    size = (60, 80)
    plain = _make(cameras=("primary",), image_size=size)
    undisturbed = {seed: plain.reset(seed)["image"]["primary"] for seed in (0, 1)}
    for variant in ("distractors", "light", "table_color"):
        environment = _make(cameras=("primary",), image_size=size, variant=variant)
        first = environment.reset(0)["image"]["primary"]
        other = environment.reset(1)["image"]["primary"]
        again = environment.reset(0)["image"]["primary"]
        np.testing.assert_array_equal(first, again)
        assert (first != undisturbed[0]).any() and (other != undisturbed[1]).any()
        environment.close()
    # The ball is there for a second, and neither before nor after.
    environment = _make(cameras=("primary",), image_size=size, variant="interference")
    environment.reset(0)
    plain.reset(0)
    action = np.array([0, -0.96, 1.16, 0, -0.3, 0, 0.0] * 2)
    seen = []
    for _ in range(0, 320, 10):
        for _ in range(9):
            plain.step(action, render=False)
            environment.step(action, render=False)
        with_ball = environment.step(action)[0]["image"]["primary"].astype(int)
        without = plain.step(action)[0]["image"]["primary"]
        seen.append((abs(with_ball - without).max(-1) > 60).sum() > 8)
    shown = np.flatnonzero(seen)
    assert 3 <= len(shown) <= 5
    assert (np.diff(shown) == 1).all() and not seen[0] and not seen[-1]


class RestingAgent:
    """Keeps both arms at rest and points at the middle of the picture."""

    cameras = ("primary",)
    image_size = (12, 16)
    point_cameras = ("primary",)

    def reset(self, slot, seed):
        pass

    def needs_image(self, slot):
        return True

    def act(self, slots, observations, instructions):
        for observation in observations:
            assert observation["image"]["primary"].shape == (12, 16, 3)
            assert observation["proprio"].shape == (14,)
        return np.tile([0, -0.96, 1.16, 0, -0.3, 0, 0.0], (len(slots), 2))

    def diagnostics(self, slot):
        return {"points": np.zeros((1, 2))}


@in_own_process
def test_a_policy_is_evaluated_from_paired_starts():
    import functools
    import tempfile

    from vla_jax.simulation.evaluation import compare, evaluate

    reports = []
    for variant in ("none", "light"):
        make = functools.partial(
            make_environment,
            "aloha",
            image_size=(12, 16),
            cameras=("primary",),
            horizon=25,
            variant=variant,
        )
        with tempfile.TemporaryDirectory() as out:
            report = evaluate(
                RestingAgent(),
                out,
                ["insertion"],
                make,
                episodes=2,
                seed=1,
                settings={},
                confidence=0.99,
                stages={"insertion": list_stages("aloha", "insertion")},
                num_workers=1,
                progress=False,
            )
        reports.append(report)
    first, second = reports[0]["episodes"]
    assert first["start"] != second["start"] and len(first["start"]) == 2
    assert first["stage"] == 0 and first["steps"] == 25
    # The objects fall on the table and rest; the point stays where it is.
    assert first["metrics"]["jitter"] == 0 and first["metrics"]["locked"] == 1
    assert first["metrics"]["drift"] < 10
    stages = reports[0]["tasks"]["insertion"]["stages"]
    assert stages["grasped"]["reached"] == 0
    assert compare(*reports)["insertion"]["neither"] == 2
