"""Labels, value by value: gripper events, poses, future images."""

import pickle

import numpy as np
import pytest

from tests import fake, fake_robot
from vla_jax.data.batch import make_batch
from vla_jax.data.image import decode
from vla_jax.data.labels import draw_goal, steps_to_event
from vla_jax.data.loader import train_batches
from vla_jax.data.source import open_source

CONFIG = {
    "cameras": ("primary",),
    "image_size": (8, 8),
    "window": 1,
    "chunk": 4,
    "normalization": {"action": "none", "proprio": "none"},
    "text": {"length": 8, "model": ""},
    "batch_size": 2,
    "num_threads": 0,
    "prefetch": 0,
}


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return fake_robot.write_robot(tmp_path_factory.mktemp("robot"))


@pytest.fixture(scope="module")
def metaworld(tmp_path_factory):
    return fake.write_dataset(tmp_path_factory.mktemp("metaworld"), lengths=(3, 5))


def make_source(robot, *labels, others=(), **changes):
    datasets = [{"path": str(robot), "spec": fake_robot.NAME}]
    datasets += [{"path": str(folder), "spec": "metaworld"} for folder in others]
    return open_source({**CONFIG, "datasets": datasets, "labels": labels, **changes})


def label(source, samples, dataset=None, **options):
    """The first label of a batch."""
    dataset = np.zeros(len(samples), np.int32) if dataset is None else dataset
    batch = make_batch(source, np.array(dataset), np.array(samples), **options)
    return next(iter(batch["labels"].values()))


@pytest.mark.parametrize(
    ("gripper", "expected"),
    [
        ([1, 1, 0, 0, 0, 1, 1, 1], [2, 1, 0, 2, 1, 0, -1, -1]),
        ([0, 0, 0, 0], [-1, -1, -1, -1]),
        ([1, 0, 0, 0], [1, 0, -1, -1]),  # what comes first need not last
        ([0, 0, 1, 0, 0, 0], [-1] * 6),  # a flicker, and back again
        ([0, 1, 1, 0, 1, 1, 1], [4, 3, 2, 1, 0, -1, -1]),  # late, but it stays
        ([1, 1, 1, 0, 0], [-1] * 5),  # cut off before it has lasted
        ([0.4, 0.5, 0.6, 0.9, 0.7], [1, 0, -1, -1, -1]),  # the middle is open
        ([1], [-1]),
    ],
)
def test_an_event_is_a_change_that_lasts_three_frames(gripper, expected):
    actual = steps_to_event(np.array(gripper, np.float32))
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == np.int32


def test_gripper_event_tells_when_and_where(robot):
    event = label(make_source(robot, {"name": "gripper_event"}), range(12))
    np.testing.assert_array_equal(event["offset"], [2, 1, 0, 2, 1, 0] + [0] * 6)
    np.testing.assert_array_equal(event["mask"], [True] * 6 + [False] * 6)
    expected = [fake_robot.pose(0, t) for t in (2, 2, 2, 5, 5, 5)] + [[0] * 7] * 6
    np.testing.assert_array_equal(event["pose"], expected)
    np.testing.assert_array_equal(event["pose_mask"], event["mask"])


def test_steps_after_the_last_event_are_masked(robot, metaworld):
    source = make_source(robot, {"name": "gripper_event"}, others=(metaworld,))
    event = label(source, [0, 0, 2], dataset=[1, 0, 1])
    np.testing.assert_array_equal(event["mask"], [False, True, False])
    np.testing.assert_array_equal(event["pose_mask"], [False, True, False])
    np.testing.assert_array_equal(event["pose"][1], fake_robot.pose(0, 2))
    assert not event["pose"][[0, 2]].any()


def test_poses_at_offsets_end_with_the_episode(robot):
    source = make_source(robot, {"name": "pose", "offsets": (0, 2)})
    poses = label(source, [5, 6, 9])  # the last is step 1 of episode 1
    np.testing.assert_array_equal(
        poses["mask"], [[True, True], [True, False], [True, True]]
    )
    expected = [
        [fake_robot.pose(0, 5), fake_robot.pose(0, 7)],
        [fake_robot.pose(0, 6), [0] * 7],
        [fake_robot.pose(1, 1), fake_robot.pose(1, 3)],
    ]
    np.testing.assert_array_equal(poses["pose"], expected)


def test_objects_that_are_not_there_are_masked(robot, metaworld):
    source = make_source(robot, {"name": "objects", "offsets": (0, 2)})
    objects = label(source, [5, 6, 9])  # the last is step 1 of episode 1
    assert objects["pose"].shape == (3, 2, 2, 7)
    np.testing.assert_array_equal(
        objects["mask"],
        [
            [[True, True], [True, True]],
            [[True, True], [False, False]],
            [[True, False], [True, False]],
        ],
    )
    np.testing.assert_array_equal(objects["pose"][0, 1, 0], fake_robot.pose(0, 7))
    np.testing.assert_array_equal(objects["pose"][0, 1, 1], [0, 7, 1.5, 0, 0, 0, 1])
    np.testing.assert_array_equal(objects["pose"][2, 1, 0], fake_robot.pose(1, 3))
    assert not objects["pose"][~objects["mask"]].any()
    mixed = make_source(robot, {"name": "objects"}, others=(metaworld,))
    objects = label(mixed, [2, 2], dataset=[0, 1])
    assert objects["mask"].tolist() == [[[True, True]], [[False, False]]]


def test_future_frames_are_the_images_of_those_steps(robot):
    config = {"name": "future_frames", "offsets": (1, 3), "cameras": ("primary",)}
    source = make_source(robot, config)
    frames, index = label(source, range(12)), source.indexes[0]
    np.testing.assert_array_equal(frames["offset"], [[1, 3]] * 12)
    real = [[True, True]] * 5 + [[True, False]] * 2 + [[False, False]]
    real += [[True, True]] + [[True, False]] * 2 + [[False, False]]
    np.testing.assert_array_equal(frames["mask"], real)
    np.testing.assert_array_equal(frames["image_mask"]["primary"], real)
    image = frames["image"]["primary"]
    assert image.shape == (12, 2, 8, 8, 3) and image.dtype == np.uint8
    for row in range(12):
        for column, offset in enumerate((1, 3)):
            expected = np.zeros((8, 8, 3), np.uint8)
            if real[row][column]:
                expected = decode(index.read_image("primary", row + offset))
            np.testing.assert_array_equal(image[row, column], expected)


def test_future_frames_of_a_missing_camera_are_black_and_masked(robot, metaworld):
    config = {"name": "future_frames", "offsets": [1], "cameras": ["wrist"]}
    source = make_source(robot, config, others=(metaworld,), image_size=(4, 6))
    frames = label(source, [0, 0], dataset=[0, 1])
    np.testing.assert_array_equal(frames["mask"], [[True], [True]])
    np.testing.assert_array_equal(frames["image_mask"]["wrist"], [[False], [True]])
    assert frames["image"]["wrist"].shape == (2, 1, 4, 6, 3)
    assert not frames["image"]["wrist"][0].any() and frames["image"]["wrist"][1].any()


def test_random_offsets_differ_and_depend_on_seed_and_sample_only(robot):
    config = {"name": "future_frames", "offsets": "random:2", "cameras": ["primary"]}
    source = make_source(robot, config)
    drawn = [label(source, range(8), seed=seed) for seed in range(20)]
    offsets = np.stack([frames["offset"] for frames in drawn])
    assert np.all(offsets[..., 0] < offsets[..., 1])
    assert {tuple(pair) for pair in offsets.reshape(-1, 2).tolist()} == {
        (1, 2),
        (1, 3),
        (2, 3),
    }
    again = label(source, [5, 3], seed=7)
    np.testing.assert_array_equal(again["offset"], offsets[7, [5, 3]])
    np.testing.assert_array_equal(
        again["image"]["primary"], drawn[7]["image"]["primary"][[5, 3]]
    )
    every = make_source(robot, {**config, "offsets": "random:3"})
    np.testing.assert_array_equal(label(every, [0])["offset"], [[1, 2, 3]])


def test_goals_are_later_steps_and_the_last_step_is_its_own():
    step, length = np.array([0, 0, 0, 0, 3, 4, 0]), np.array([5] * 6 + [1])
    chance = np.array([0, 3, 4, 7, 9, 9, 9], np.uint64)
    goal = draw_goal(step, length, chance)
    np.testing.assert_array_equal(goal, [1, 4, 1, 4, 1, 0, 0])


def test_goal_images_are_the_images_of_those_steps(robot):
    source = make_source(robot, {"name": "goal_image", "cameras": ("primary",)})
    index, seen = source.indexes[0], set()
    for seed in range(30):
        goal = label(source, range(12), seed=seed)
        offset = goal["offset"][:, 0]
        assert goal["image_mask"]["primary"].all()
        assert goal["image"]["primary"].shape == (12, 1, 8, 8, 3)
        seen.add(offset[0])
        assert offset[7] == offset[11] == 0  # the last steps of the two episodes
        assert np.all(np.arange(8) + offset[:8] <= 7)
        for row in (0, 5, 11):
            expected = decode(index.read_image("primary", row + offset[row]))
            np.testing.assert_array_equal(goal["image"]["primary"][row, 0], expected)
    assert seen == {1, 2, 3, 4, 5, 6, 7}
    again = label(source, [9, 2], seed=29)["offset"][:, 0]
    np.testing.assert_array_equal(again, offset[[9, 2]])


def test_goal_images_of_a_missing_camera_are_black_and_masked(robot, metaworld):
    config = {"name": "goal_image", "cameras": ["wrist"]}
    goal = label(make_source(robot, config, others=(metaworld,)), [0, 0], [0, 1])
    np.testing.assert_array_equal(goal["image_mask"]["wrist"], [[False], [True]])
    assert not goal["image"]["wrist"][0].any() and goal["image"]["wrist"][1].any()


def test_hosts_draw_the_offsets_that_one_host_would(robot):
    config = {"name": "future_frames", "offsets": "random:2", "cameras": ["primary"]}
    source = make_source(robot, config, num_threads=2, prefetch=1)

    def first(**options):
        with train_batches(source, seed=3, **options) as batches:
            return next(batches)["labels"]["future_frames"]

    whole = first()
    parts = [first(host=host, num_hosts=2) for host in range(2)]
    for key in ("offset", "mask"):
        together = np.concatenate([part[key] for part in parts])
        np.testing.assert_array_equal(together, whole[key])


def test_labels_travel_with_the_source_and_change_nothing_else(robot):
    plain = make_source(robot)
    source = pickle.loads(pickle.dumps(make_source(robot, {"name": "gripper_event"})))
    rows = np.zeros(12, np.int32), np.arange(12)
    one, two = make_batch(plain, *rows), make_batch(source, *rows)
    assert one["labels"] == {} and list(two["labels"]) == ["gripper_event"]
    assert set(one["observation"]) == {"image", "image_mask", "proprio", "frame_mask"}
    np.testing.assert_array_equal(one["action"], two["action"])
    np.testing.assert_array_equal(
        one["observation"]["image"]["primary"], two["observation"]["image"]["primary"]
    )


FRAMES = {"name": "future_frames", "offsets": (1,), "cameras": ("primary",)}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([{"name": "griper_event"}], "Unknown label 'griper_event'.*'gripper_event'"),
        ([{"offsets": (1,)}], "Unknown label None.*'future_frames'"),
        ([{"name": "gripper_event", "hold": 3}], "'hold' in label 'gripper_event'"),
        ([{"name": "future_frames", "offsets": (1,)}], r"lacks \['cameras'\]"),
        ([FRAMES, FRAMES], "'future_frames' stands in data.labels twice"),
        ([{**FRAMES, "cameras": ("wrist",)}], r"\('wrist',\).*\['primary'\]"),
        ([{**FRAMES, "cameras": "primary"}], "give a tuple of some"),
        ([{"name": "goal_image", "cameras": ()}], r"'goal_image'.*\['primary'\]"),
        ([{**FRAMES, "offsets": (0,)}], r"\(0,\).*at least 1"),
        ([{**FRAMES, "offsets": ()}], "give a tuple of whole numbers"),
        ([{**FRAMES, "offsets": "random:4"}], "count of 1 to 3"),
        ([{**FRAMES, "offsets": "all"}], "'all'.*'random:<count>'"),
    ],
)
def test_mistakes_in_the_config_are_named(robot, labels, message):
    with pytest.raises(ValueError, match=message):
        make_source(robot, *labels)


def test_labels_that_no_data_set_can_have_are_refused(metaworld):
    datasets = [{"path": str(metaworld), "spec": "metaworld"}]
    config = {**CONFIG, "datasets": datasets, "labels": [{"name": "objects"}]}
    with pytest.raises(ValueError, match=r"none of \['metaworld'\] does"):
        open_source(config)
