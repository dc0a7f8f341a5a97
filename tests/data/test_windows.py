"""Windows and chunks, step by step, also at a lower rate than was recorded."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fake, fake_robot
from vla_jax.data.batch import make_batch
from vla_jax.data.image import decode
from vla_jax.data.source import open_source
from vla_jax.data.statistics_choice import stream_merged_actions
from vla_jax.data.windows import choose_skip, merge_actions, window_and_chunk

PLAIN = {"action": "none", "proprio": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake.write_dataset(tmp_path_factory.mktemp("data"), lengths=(3, 5, 4))


def make_source(folder, spec="metaworld", labels=(), normalization=PLAIN, **dataset):
    datasets = ({"path": str(folder), "spec": spec, **dataset},)
    cameras = ("primary",)
    return open_source(
        fake.data_config(
            datasets=datasets,
            labels=labels,
            normalization=normalization,
            cameras=cameras,
        )
    )


def test_window_and_chunk_on_three_steps():
    step, length = np.array([0, 1, 2]), np.array([3, 3, 3])
    past, frame_mask, future, action_mask = window_and_chunk(
        step, length, window=2, chunk=2
    )
    np.testing.assert_array_equal(past, [[0, 0], [0, 1], [1, 2]])
    np.testing.assert_array_equal(frame_mask, [[0, 1], [1, 1], [1, 1]])
    np.testing.assert_array_equal(future, [[0, 1], [1, 2], [2, 2]])
    np.testing.assert_array_equal(action_mask, [[1, 1], [1, 1], [1, 0]])


@given(
    length=st.integers(1, 20),
    window=st.integers(1, 5),
    chunk=st.integers(1, 25),
    data=st.data(),
)
def test_window_ends_and_chunk_starts_at_the_step(length, window, chunk, data):
    step = data.draw(st.integers(0, length - 1))
    past, frame_mask, future, action_mask = (
        row[0]
        for row in window_and_chunk(
            np.array([step]), np.array([length]), window=window, chunk=chunk
        )
    )
    assert past[-1] == step and frame_mask[-1]
    assert future[0] == step and action_mask[0]
    for indices in (past, future):
        assert indices.min() >= 0 and indices.max() < length
        assert set(np.diff(indices)) <= {0, 1}
    assert frame_mask.sum() == min(window, step + 1)
    assert action_mask.sum() == min(chunk, length - step)


def test_every_second_frame_and_two_actions_a_step():
    step, length = np.array([0, 1, 4]), np.array([5, 5, 5])
    past, frame_mask, future, action_mask = window_and_chunk(
        step, length, window=3, chunk=2, skip=2
    )
    np.testing.assert_array_equal(past, [[0, 0, 0], [1, 1, 1], [0, 2, 4]])
    np.testing.assert_array_equal(frame_mask, [[0, 0, 1], [0, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(future, [[0, 1, 2, 3], [1, 2, 3, 4], [4, 4, 4, 4]])
    np.testing.assert_array_equal(action_mask, [[1] * 4, [1] * 4, [1, 0, 0, 0]])


def test_relative_actions_add_up_and_of_absolute_ones_the_last_counts():
    action = np.array([[[1, 10], [2, 20], [3, 30], [4, 40], [0, 40], [0, 40]]])
    real = np.array([[True, True, True, True, False, False]])
    relative = np.array([True, False])
    merged, mask = merge_actions(action, real, relative, 2)
    np.testing.assert_array_equal(merged, [[[3, 20], [7, 40], [0, 40]]])
    np.testing.assert_array_equal(mask, [[True, True, False]])
    merged, mask = merge_actions(action, real, relative, 3)
    np.testing.assert_array_equal(merged, [[[6, 30], [4, 40]]])
    np.testing.assert_array_equal(mask, [[True, True]])
    assert merge_actions(action, real, relative, 1) == (action, real)


def test_batches_skip_frames(folder):
    source = make_source(folder, frame_skip=2)
    episodes = source.episodes("train")[0]
    row = list(episodes.length).index(5)
    number, first = episodes.number[row], episodes.first_sample[row]
    batch = make_batch(source, np.zeros(2, int), first + np.array([0, 3]))
    np.testing.assert_array_equal(batch["step"], [0, 3])
    # Recorded: 0, 0.01, ... 0.04; the gripper is open at even steps.
    np.testing.assert_allclose(
        batch["action"][:, :, 1], [[0.01, 0.05, 0.04], [0.07, 0, 0]], atol=1e-7
    )
    np.testing.assert_array_equal(batch["action"][:, :, 3], [[0, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(
        batch["action_mask"].all(axis=2), [[True, True, True], [True, False, False]]
    )
    observation, index = batch["observation"], source.indexes[0]
    start = index.first_step[number]
    np.testing.assert_array_equal(observation["frame_mask"], [[0, 1], [1, 1]])
    np.testing.assert_array_equal(
        observation["proprio"], index.proprio[start + np.array([[0, 0], [1, 3]])]
    )
    for place, step in ((0, 1), (1, 3)):
        np.testing.assert_array_equal(
            observation["image"]["primary"][1, place],
            decode(index.read_image("primary", start + step)),
        )
    assert source.metadata()["datasets"][0]["control_hz"] == 40


def test_statistics_are_those_of_the_merged_actions(folder):
    source = make_source(
        folder,
        frame_skip=2,
        normalization={"action": "min_max", "proprio": "none"},
    )
    stats = source.statistics[0]["action"]
    # One value per step: t + (t + 1) hundredths, the last step alone.
    expected = np.array([1, 3, 2, 1, 3, 5, 7, 4, 1, 3, 5, 3]) / 100
    assert stats.count == 12
    np.testing.assert_allclose(stats.mean[1], expected.mean(), rtol=1e-6)
    np.testing.assert_allclose([stats.min[1], stats.max[1]], [0.01, 0.07], rtol=1e-6)
    same = stream_merged_actions(source.indexes[0], 1).finish()
    np.testing.assert_allclose(same.mean, source.indexes[0].statistics["action"].mean)
    batch = make_batch(source, np.zeros(12, int), np.arange(12))
    real = batch["action"][batch["action_mask"].all(axis=2)]
    assert np.abs(real[:, 1]).max() <= 1 + 1e-6
    stored = source.metadata()["datasets"][0]["statistics"]["action"]
    assert stored == stats.to_json()


def test_labels_count_in_steps_of_the_policy(tmp_path):
    folder = fake_robot.write_robot(tmp_path)
    labels = (
        {"name": "gripper_event"},
        {"name": "pose", "offsets": (1, 2)},
        {"name": "future_frames", "offsets": (2,), "cameras": ("primary",)},
        {"name": "goal_image", "cameras": ("primary",)},
    )
    source = make_source(folder, fake_robot.NAME, labels, frame_skip=2)
    found = make_batch(source, np.zeros(8, int), np.arange(8))["labels"]
    event = found["gripper_event"]  # at the steps 2 and 5
    np.testing.assert_array_equal(event["offset"], [1, 0, 0, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(event["pose"][0], fake_robot.pose(0, 2))
    pose = found["pose"]
    np.testing.assert_array_equal(
        pose["pose"][3], [fake_robot.pose(0, 5), fake_robot.pose(0, 7)]
    )
    np.testing.assert_array_equal(pose["mask"][4:6], [[True, False]] * 2)
    np.testing.assert_array_equal(
        found["future_frames"]["image"]["primary"][1, 0],
        decode(source.indexes[0].read_image("primary", 5)),
    )
    assert found["goal_image"]["offset"].max() <= 4


def test_data_sets_of_different_rates_act_at_the_same_one(folder, tmp_path):
    # 80 Hz and 5 Hz; at 5 Hz, sixteen recorded steps of the first are one.
    robot = fake_robot.write_robot(tmp_path)
    long = fake.write_dataset(tmp_path, lengths=(33,), name="long")
    datasets = (
        {"path": str(long), "spec": "metaworld", "target_hz": 5.0},
        {"path": str(robot), "spec": fake_robot.NAME, "target_hz": 5.0},
    )
    source = open_source(
        fake.data_config(
            datasets=datasets, normalization=PLAIN, cameras=("primary",), chunk=2
        )
    )
    assert source.skips == (16, 1)
    stored = source.metadata()["datasets"]
    assert [entry["control_hz"] for entry in stored] == [5.0, 5.0]
    fast, slow = source.indexes
    batch = make_batch(source, np.array([0, 1]), np.array([20, 1]))
    observation = batch["observation"]
    proprio = observation["proprio"]
    np.testing.assert_array_equal(proprio[0], fast.proprio[[4, 20]])
    np.testing.assert_array_equal(
        proprio[1, :, : slow.proprio.shape[1]], slow.proprio[:2]
    )
    # The displacements of steps 20 to 32, the last, are one action; no other follows.
    moved = fast.action[20:33, :3].sum(axis=0)
    np.testing.assert_allclose(batch["action"][0, 0, :3], moved, rtol=1e-6)
    np.testing.assert_array_equal(batch["action_mask"][0, :, 0], [True, False])
    width = slow.action.shape[1]
    np.testing.assert_array_equal(batch["action"][1, :, :width], slow.action[1:3])
    for row, (index, steps) in enumerate(((fast, (4, 20)), (slow, (0, 1)))):
        for frame, step in enumerate(steps):
            np.testing.assert_array_equal(
                observation["image"]["primary"][row, frame],
                decode(index.read_image("primary", step)),
            )


def test_rates_are_matched_by_whole_steps():
    assert choose_skip({}, 20.0, "d") == 1
    assert choose_skip({"frame_skip": 3}, 20.0, "d") == 3
    rates = [(50.0, 10.0, 5), (15.0, 5.0, 3), (5.0, 5.0, 1), (30.0, 20.0, 2)]
    for control_hz, target, skip in (*rates, (12.5, 5.0, 2)):
        assert choose_skip({"target_hz": target}, control_hz, "d") == skip


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"frame_skip": 2, "target_hz": 5}, "d has both frame_skip and target_hz"),
        ({"frame_skip": 0}, "d.frame_skip is 0; expected a whole number"),
        ({"frame_skip": 1.5}, "d.frame_skip is 1.5; expected a whole number"),
        ({"target_hz": 0}, "d.target_hz is 0; expected more than 0"),
        ({"target_hz": 20}, "d was recorded at 10 Hz.*too far from target_hz=20"),
    ],
)
def test_impossible_rates_are_named(dataset, message):
    with pytest.raises(ValueError, match=message):
        choose_skip(dataset, 10.0, "d")


def test_sources_made_by_hand_skip_nothing(folder):
    source = dataclasses.replace(make_source(folder, target_hz=40), frame_skips=())
    assert source.skips == (1,)
