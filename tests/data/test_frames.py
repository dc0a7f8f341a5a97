"""Depth images and camera matrices reach a batch in metres and in pixels of it."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import fake, fake_robot
from vla_jax.data.batch import make_batch
from vla_jax.data.loader import to_device
from vla_jax.data.source import open_source

CONFIG = {
    "cameras": ("primary", "wrist"),
    "image_size": (4, 16),
    "window": 2,
    "chunk": 4,
    "normalization": {"action": "none", "proprio": "none"},
    "text": {"length": 8, "model": ""},
    "batch_size": 2,
    "num_threads": 0,
    "prefetch": 0,
    "depth": ("primary",),
    "camera_matrices": True,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    return fake_robot.write_robot(path), fake.write_dataset(path, lengths=(3, 5))


def make_source(folders, **changes):
    robot, metaworld = folders
    datasets = (
        {"path": str(robot), "spec": fake_robot.NAME},
        {"path": str(metaworld), "spec": "metaworld"},
    )
    return open_source({**CONFIG, "datasets": datasets, **changes})


@pytest.fixture(scope="module")
def source(folders):
    return make_source(folders)


def observe(source, dataset, sample):
    return make_batch(source, np.array(dataset), np.array(sample))["observation"]


def test_metadata_say_which_robot_has_depth_and_matrices(source):
    metadata = source.metadata()
    assert metadata["depth"] == ["primary"]
    robot = metadata["datasets"][0]["name"]
    assert metadata["depth_cameras"] == {robot: ["primary"], "metaworld": []}
    matrices = {"primary": ["extrinsics", "intrinsics"]}
    assert metadata["camera_matrices"] == {robot: matrices, "metaworld": {}}


def test_depth_is_in_metres_and_takes_the_nearest_pixel(source):
    depth = observe(source, [0, 0], [3, 9])["depth"]["primary"]
    assert depth.shape == (2, 2, 4, 16) and depth.dtype == np.float32
    pixels = np.repeat(np.arange(16).reshape(4, 4), 4, axis=1)  # 4 columns to 16
    for row, (first, second) in enumerate(((200, 300), (1000, 1100))):
        np.testing.assert_allclose(depth[row, 0], (pixels + first) / 1000, rtol=1e-6)
        np.testing.assert_allclose(depth[row, 1], (pixels + second) / 1000, rtol=1e-6)


def test_depth_before_an_episode_repeats_its_first_frame(source):
    observation = observe(source, [0], [8])  # step 0 of episode 1
    np.testing.assert_array_equal(observation["frame_mask"], [[False, True]])
    depth = observation["depth"]["primary"][0]
    np.testing.assert_array_equal(depth[0], depth[1])
    np.testing.assert_allclose(depth[0, 0, 0], 1.0)


def test_depth_has_the_scale_of_its_spec(source):
    index = source.indexes[0]
    kind, arguments = index.__reduce__()
    spec = dataclasses.replace(index.spec, depth_scale={"primary": 0.01})
    index = kind(*arguments[:2], spec)
    source = dataclasses.replace(source, indexes=(index, source.indexes[1]))
    depth = observe(source, [0], [8])["depth"]["primary"]
    np.testing.assert_allclose(depth[0, 0, 0, 0], 10.0)


def test_matrices_are_those_of_the_step_and_fit_the_resized_image(source):
    camera = observe(source, [0, 0], [3, 8])["camera"]["primary"]
    # 8x8 becomes 4 high and 16 wide.
    intrinsics = np.array([[20, 0, 8], [0, 10, 3], [0, 0, 1]], np.float32)
    assert camera["intrinsics"].dtype == camera["extrinsics"].dtype == np.float32
    np.testing.assert_array_equal(
        camera["intrinsics"], np.broadcast_to(intrinsics, (2, 2, 3, 3))
    )
    np.testing.assert_array_equal(
        camera["extrinsics"][:, :, 0, 3],
        [[2, 3], [0, 0]],  # metres; repeated at the start
    )
    np.testing.assert_array_equal(
        camera["extrinsics"][..., 1:, :], np.broadcast_to(np.eye(4)[1:], (2, 2, 3, 4))
    )


def test_what_a_data_set_lacks_is_zero(source):
    observation = observe(source, [1, 0], [1, 1])
    assert not observation["depth"]["primary"][0].any()
    assert observation["depth"]["primary"][1].any()
    assert set(observation["camera"]) == {"primary", "wrist"}
    for key in ("intrinsics", "extrinsics"):
        assert not observation["camera"]["primary"][key][0].any()
        assert not observation["camera"]["wrist"][key].any()
        np.testing.assert_array_equal(
            observation["camera"]["primary"][key][1, :, -1, -1], [1, 1]
        )


def test_depth_and_matrices_change_nothing_else(folders, source):
    plain = make_source(folders, depth=(), camera_matrices=False)
    rows = np.array([0, 1, 0]), np.array([0, 1, 9])
    one, two = make_batch(plain, *rows), make_batch(source, *rows)
    assert set(two["observation"]) - set(one["observation"]) == {"depth", "camera"}
    for key in ("image", "image_mask", "proprio", "frame_mask"):
        jax.tree.map(
            np.testing.assert_array_equal,
            one["observation"][key],
            two["observation"][key],
        )


def test_everything_reaches_the_devices(folders):
    labels = ({"name": "gripper_event"},)
    labels += ({"name": "future_frames", "offsets": (1,), "cameras": ("primary",)},)
    source = make_source(folders, labels=labels)
    expected = make_batch(source, np.array([0, 1]), np.array([1, 1]))
    mesh = jax.make_mesh((2,), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    with to_device(iter([expected]), sharding) as batches:
        batch = next(batches)
    assert batch.observation.depth["primary"].sharding == sharding
    for actual, key in (
        (batch.observation.depth, "depth"),
        (batch.observation.camera, "camera"),
    ):
        jax.tree.map(
            np.testing.assert_array_equal, actual, expected["observation"][key]
        )
    jax.tree.map(np.testing.assert_array_equal, batch.labels, expected["labels"])


def test_a_broken_depth_image_is_named(source):
    kind, arguments = source.indexes[0].__reduce__()
    index = kind(*arguments)
    spans = np.array(index.depth_spans["primary"])
    spans[3, 2] -= 30
    index.depth_spans = {"primary": spans}
    source = dataclasses.replace(source, indexes=(index, source.indexes[1]))
    with pytest.raises(
        ValueError,
        match=r"depth image of .*'robot', camera 'primary', episode 0, step 3",
    ):
        observe(source, [0], [3])


def test_sizes_that_are_not_stated_are_those_of_the_first_image(source):
    kind, arguments = source.indexes[0].__reduce__()
    index = kind(*arguments)
    assert index.image_size("primary") == (8, 8)
    index = kind(*arguments)
    index.image_features["primary"]["shape"] = [-1, -1, 3]
    spans = np.array(index.image_spans["primary"])
    spans[0, 2] = 0
    index.image_spans = {"primary": spans}
    assert index.image_size("primary") == (8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": ("wrist",)}, r"camera 'wrist'; data.depth can be \['primary'\]"),
        ({"depths": ()}, "'depths'.*'depth'"),
    ],
)
def test_mistakes_in_the_config_are_named(folders, changes, message):
    with pytest.raises(ValueError, match=message):
        make_source(folders, **changes)


def test_matrices_that_no_data_set_has_are_refused(folders):
    datasets = ({"path": str(folders[1]), "spec": "metaworld"},)
    config = {**CONFIG, "datasets": datasets, "depth": ()}
    with pytest.raises(ValueError, match="camera_matrices is on, but no data set"):
        open_source(config)
