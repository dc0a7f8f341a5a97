"""The index finds every image and action again."""

import dataclasses
import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests import fake, fake_robot
from vla_jax.data.index import Index
from vla_jax.data.standardize import DATASETS, DatasetSpec
from vla_jax.data.tfrecord import encode_example
from vla_jax.data.write import Image, RLDSWriter, Tensor

SPEC = DATASETS["metaworld"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return fake.write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def index(folder) -> Index:
    return fake.open_index(folder)


def test_episodes_are_numbered_through(index):
    assert (index.num_episodes, index.num_steps) == (4, 14)
    np.testing.assert_array_equal(index.first_step, [0, 3, 8, 12])
    np.testing.assert_array_equal(index.num_episode_steps, [3, 5, 4, 2])
    expected = [0] * 3 + [1] * 5 + [2] * 4 + [3] * 2
    np.testing.assert_array_equal(index.episode, expected)
    np.testing.assert_array_equal(index.shard, [0, 0, 1, 2])
    assert index.first_step.dtype == np.int64
    assert index.num_episode_steps.dtype == np.int32
    assert index.episode.dtype == np.int32


def test_arrays_are_standard_and_mapped(index):
    for episode, length in enumerate((3, 5, 4, 2)):
        for t in range(length):
            raw = fake.action(episode, t)
            expected = [*raw[:3], (1 - raw[3]) / 2]
            step = index.first_step[episode] + t
            np.testing.assert_allclose(index.action[step], expected, rtol=1e-6)
    assert index.proprio.shape == (14, 4)
    assert index.action.dtype == index.proprio.dtype == np.float32
    assert type(index.action) is np.ndarray and not index.action.flags.writeable
    assert str(index.path / "action.npy") in Path("/proc/self/maps").read_text()
    assert index.objects is None


def test_every_image_is_found(index):
    assert index.cameras == ("primary", "wrist")
    for camera in index.cameras:
        for step in range(index.num_steps):
            episode = int(index.episode[step])
            t = step - int(index.first_step[episode])
            pixels = simplejpeg.decode_jpeg(index.read_image(camera, step))
            difference = pixels.astype(int) - fake.image(episode, t, camera)
            assert abs(difference).max() <= 3
    with pytest.raises(
        ValueError, match=r"no camera 'front'; .*\['primary', 'wrist'\]"
    ):
        index.read_image("front", 0)


def test_splits_are_those_of_the_folder(index):
    assert index.split_episodes("train").tolist() == [0, 1, 2]
    assert index.split_episodes("val").tolist() == [3]
    assert index.split_episodes("val").dtype == np.int32
    assert index.counts["steps"] == {"train": 12, "val": 2}
    with pytest.raises(ValueError, match=r"no split 'tset'; .*\['train', 'val'\]"):
        index.split_episodes("tset")


def test_a_misspelled_camera_or_split_gets_the_nearest_name(index):
    with pytest.raises(ValueError, match="no camera 'primry'; did you mean 'primary'"):
        index.read_image("primry", 0)
    with pytest.raises(ValueError, match="no split 'trian'; did you mean 'train'"):
        index.split_episodes("trian")


def test_instructions_are_stored_once(index):
    assert index.languages == list(fake.INSTRUCTIONS)
    assert index.language.shape == (14, 1)
    assert index.instructions(4) == ["press the button"]


def test_statistics_leave_out_validation(index):
    train = index.action[:12]
    stats = index.statistics["action"]
    assert stats.count == 12
    np.testing.assert_allclose(stats.mean, train.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(stats.max, train.max(0))
    assert stats.quantile_error == 0


def test_an_index_is_picklable(index):
    copy = pickle.loads(pickle.dumps(index))
    assert copy.read_image("wrist", 5) == index.read_image("wrist", 5)
    assert len(pickle.dumps(index)) < 4000


def _rich(raw) -> dict:
    steps = raw.num_steps
    pose = np.arange(7) + np.arange(steps)[:, None]
    language = [["a", "b"], [], ["b"]][:steps] + [["c"]] * (steps - 3)
    return {
        "proprio": np.zeros((steps, 0)),
        "action": raw.arrays["steps/action"],
        "language": language,
        "pose": pose,
    }


def test_poses_depth_and_alternatives_are_kept(tmp_path):
    features = {
        "image": Image(4, 4),
        "depth": Image(4, 4, 1, encoding="png", dtype=np.uint16),
        "action": Tensor(np.float32, (2,)),
    }
    with RLDSWriter(tmp_path, "robot", features, episodes_per_shard=1) as writer:
        for length in (2, 4):
            steps = {
                "image": np.zeros((length, 4, 4, 3), np.uint8),
                "depth": np.full((length, 4, 4, 1), 300, np.uint16),
                "action": np.ones((length, 2), np.float32),
            }
            writer.write("train", steps)
    spec = DatasetSpec(
        "robot",
        {"primary": "steps/image"},
        ("absolute", "absolute"),
        5.0,
        _rich,
        depth={"primary": "steps/depth"},
        holdout=0.0,
    )
    index = fake.open_index(writer.folder, spec)
    assert index.proprio.shape == (6, 0)
    assert index.statistics["proprio"].mean.shape == (0,)
    np.testing.assert_array_equal(index.pose[3], np.arange(7) + 1)
    assert [index.instructions(step) for step in range(6)] == [
        ["a", "b"],
        [],
        ["a", "b"],
        [],
        ["b"],
        ["c"],
    ]
    assert index.read_depth("primary", 5).startswith(b"\x89PNG")
    assert index.depth_features["primary"]["dtype"] == "uint16"
    assert index.read_image("primary", 5).startswith(b"\xff\xd8")


def test_matrices_events_and_success_are_kept(tmp_path, index):
    robot = fake.open_index(fake_robot.write_robot(tmp_path), fake_robot.NAME)
    matrices = robot.camera_matrices
    assert list(matrices) == ["primary"]
    expected = np.broadcast_to(np.array(fake_robot.INTRINSICS, "f4"), (12, 3, 3))
    np.testing.assert_array_equal(matrices["primary"]["intrinsics"], expected)
    moved = matrices["primary"]["extrinsics"][:, 0, 3]
    np.testing.assert_array_equal(moved, [*range(8), *range(4)])
    assert matrices["primary"]["extrinsics"].dtype == np.float32
    np.testing.assert_array_equal(
        robot.next_event, [2, 1, 0, 2, 1, 0, -1, -1, -1, -1, -1, -1]
    )
    np.testing.assert_array_equal(robot.success, [1, 0])
    assert index.camera_matrices == {} and index.success is None
    assert index.next_event.tolist() == [-1] * 14
    assert not (index.path / "success.npy").exists()


def test_all_episodes_have_the_same_matrices(tmp_path):
    folder = fake_robot.write_robot(tmp_path)

    def standardize(raw):
        fields = fake_robot.standardize(raw)
        if raw.num_steps == 4:
            del fields["camera"]["primary"]["extrinsics"]
        return fields

    spec = dataclasses.replace(fake_robot.ROBOT, standardize=standardize)
    with pytest.raises(ValueError, match=r"'extrinsics/primary': 16"):
        fake.open_index(folder, spec)  # in two shards

    folder = fake.write_dataset(tmp_path, lengths=(2, 4), shards=1)
    spec = dataclasses.replace(
        SPEC,
        standardize=lambda raw: (
            SPEC.standardize(raw)
            | {
                "camera": {"wrist": {"intrinsics": np.eye(3)}}
                if raw.num_steps > 2
                else {}
            }
        ),
    )
    with pytest.raises(ValueError, match=r"'intrinsics'\)\], but \[\] in the episodes"):
        fake.open_index(folder, spec)


def test_packed_tensors_serve_as_depth(tmp_path):
    # tfds stores Tensor(encoding="zlib") as one packed byte string per step.
    features = {"action": Tensor(np.float32, (1,)), "depth": Tensor(np.uint8, (2, 2))}
    example = {
        "steps/action": np.zeros((2, 1), np.float32),
        "steps/depth": [zlib.compress(bytes([t] * 4)) for t in range(2)],
    }
    with RLDSWriter(tmp_path, "robot", features) as writer:
        writer.write_encoded("train", encode_example(example))
    path = writer.folder / "features.json"
    content = json.loads(path.read_text())
    steps = content["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    steps["featuresDict"]["features"]["depth"]["tensor"]["encoding"] = "zlib"
    path.write_text(json.dumps(content))

    def standardize(raw):
        action = raw.arrays["steps/action"]
        return {"proprio": action, "action": action, "language": []}

    depth = {"primary": "steps/depth"}
    spec = DatasetSpec("robot", {}, ("absolute",), 1.0, standardize, depth=depth)
    index = fake.open_index(writer.folder, spec)
    assert zlib.decompress(index.read_depth("primary", 1)) == bytes([1] * 4)
    assert index.depth_features["primary"]["encoding"] == "zlib"


def test_a_shard_that_shrank_after_indexing_is_named(tmp_path):
    folder = fake.write_dataset(tmp_path)
    index = fake.open_index(folder)
    (folder / "fake-train.tfrecord-00000-of-00002").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00000-of-00002 .*'primary' image of step 1"):
        index.read_image("primary", 1)
