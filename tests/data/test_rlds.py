"""What tfds writes, `open_rlds` and `episode_from_record` read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image as PILImage

from tests import fake
from vla_jax.data.rlds import Shard, episode_from_record, open_rlds
from vla_jax.data.tfrecord import encode_example, iterate_records
from vla_jax.data.write import RLDSWriter, Tensor


def _episodes(folder, split: str = "train") -> list:
    data = open_rlds(folder)
    return [
        (episode_from_record(payload, data.features), payload)
        for shard in data.splits[split]
        for _, payload in iterate_records(Path(shard.path).read_bytes(), shard.path)
    ]


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """Two episodes that tfds itself has written."""
    import tensorflow_datasets as tfds

    f = tfds.features

    class TfdsRobot(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.2.0")
        __module__ = "tfds_robot"  # tfds looks for files beside a package's module

        def _info(self):
            observation = {
                "image": f.Image(shape=(8, 6, 3), encoding_format="jpeg"),
                "wrist": f.Image(shape=(8, 6, 3), encoding_format="png"),
                "depth": f.Image(shape=(8, 6, 1), dtype=np.uint16),
                "packed": f.Tensor(shape=(2, 2), dtype=np.float32, encoding="zlib"),
                "state": f.Tensor(shape=(4,), dtype=np.float64),
            }
            steps = {
                "observation": observation,
                "action": {
                    "xyz": f.Tensor(shape=(3,), dtype=np.float32),
                    "gripper": f.Scalar(dtype=np.float32),
                },
                "is_first": f.Scalar(dtype=np.bool_),
                "count": f.Scalar(dtype=np.int32),
                "language_instruction": f.Text(),
                "tags": f.Tensor(shape=(2,), dtype=np.str_),
                "label": f.ClassLabel(names=["pick", "place"]),
                "points": f.Sequence(f.Tensor(shape=(2,), dtype=np.float32)),
                "video": f.Video(shape=(None, 8, 6, 3)),
            }
            metadata = {"file": f.Text(), "success": f.Scalar(dtype=np.bool_)}
            return tfds.core.DatasetInfo(
                builder=self,
                features=f.FeaturesDict(
                    {"steps": f.Dataset(steps), "episode_metadata": metadata}
                ),
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for length in (2, 3):
                steps = [_tfds_step(t) for t in range(length)]
                metadata = {"file": f"{length}.hdf5", "success": length == 3}
                yield length, {"steps": steps, "episode_metadata": metadata}

    builder = TfdsRobot(data_dir=str(tmp_path_factory.mktemp("tfds")))
    builder.download_and_prepare()
    return Path(str(builder.data_path))


def _tfds_step(t: int) -> dict:
    pixels = np.full((8, 6, 3), 20 * t, np.uint8)
    return {
        "observation": {
            "image": pixels,
            "wrist": pixels,
            "depth": np.full((8, 6, 1), 1000 * t, np.uint16),
            "packed": np.full((2, 2), t, np.float32),
            "state": np.arange(4) + t / 2,
        },
        "action": {"xyz": np.full(3, t, np.float32), "gripper": 0.5},
        "is_first": t == 0,
        "count": t - 1,
        "language_instruction": f"étape {t}",
        "tags": ["a", str(t)],
        "label": "place",
        "points": np.full((t, 2), t, np.float32),
        "video": np.zeros((1, 8, 6, 3), np.uint8),
    }


def test_every_field_that_tfds_wrote_is_read(tfds_folder):
    episodes = sorted(_episodes(tfds_folder), key=lambda item: item[0].num_steps)
    assert [episode.num_steps for episode, _ in episodes] == [2, 3]
    episode, payload = episodes[1]
    arrays, observation = episode.arrays, "steps/observation/"
    expected = np.arange(4) + np.array([[0], [0.5], [1]])
    np.testing.assert_array_equal(arrays[observation + "state"], expected)
    assert arrays[observation + "state"].dtype == np.float64
    assert arrays[observation + "packed"].shape == (3, 2, 2)
    assert arrays[observation + "packed"][2, 0, 0] == 2
    np.testing.assert_array_equal(arrays["steps/action/xyz"][:, 0], [0, 1, 2])
    np.testing.assert_array_equal(arrays["steps/action/gripper"], [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(arrays["steps/is_first"], [True, False, False])
    assert arrays["steps/is_first"].dtype == bool
    np.testing.assert_array_equal(arrays["steps/count"], [-1, 0, 1])
    assert arrays["steps/count"].dtype == np.int32
    np.testing.assert_array_equal(arrays["steps/label"], [1, 1, 1])
    assert [len(points) for points in arrays["steps/points"]] == [0, 1, 2]
    assert "steps/video" not in arrays
    text = [f"étape {t}".encode() for t in range(3)]
    assert episode.text["steps/language_instruction"] == text
    assert episode.text["steps/tags"][2] == [b"a", b"2"]
    assert episode.metadata["episode_metadata/file"] == b"3.hdf5"
    assert episode.metadata["episode_metadata/success"]
    for key in ("image", "wrist", "depth"):
        spans = episode.images[observation + key]
        assert spans.shape == (3, 2)
        offset, length = spans[2]
        data = bytes(payload[offset : offset + length])
        if key == "image":
            assert abs(simplejpeg.decode_jpeg(data).astype(int) - 40).max() <= 1
        else:
            pixels = np.asarray(PILImage.open(io.BytesIO(data)))
            assert (pixels == (2000 if key == "depth" else 40)).all()


def test_features_tell_kind_type_and_shape(tfds_folder):
    features = open_rlds(tfds_folder).features
    depth = features["steps/observation/depth"]
    assert (depth.kind, depth.dtype, depth.shape) == ("image", "uint16", (8, 6, 1))
    assert features["steps/observation/image"].encoding == "jpeg"
    assert features["steps/observation/packed"].encoding == "zlib"
    kinds = {key: spec.kind for key, spec in features.items()}
    assert kinds["steps/points"] == "ragged"
    assert kinds["steps/video"] == "other"
    assert kinds["steps/tags"] == "text"


def test_a_missing_key_lists_what_there_is(tmp_path):
    episode, _ = _episodes(fake.write_dataset(tmp_path))[0]
    with pytest.raises(ValueError, match=r"no array 'steps/acton'.*'steps/action'"):
        episode.arrays["steps/acton"]


def test_the_newest_version_below_a_path_is_found(tmp_path):
    folder = fake.write_dataset(tmp_path)
    newer = folder.with_name("1.10.0")
    with RLDSWriter(
        tmp_path, "fake", {"action": Tensor(np.int64)}, version="1.10.0"
    ) as writer:
        writer.write("train", {"action": [1]})
    fake_writer = folder.parent / ".2.0.0.incomplete"
    fake_writer.mkdir()
    for path in (tmp_path, tmp_path / "fake", newer):
        assert open_rlds(path).path == str(newer)
    assert open_rlds(folder).version == "1.0.0"
    assert open_rlds(folder).splits["val"] == (
        Shard(str(folder / "fake-val.tfrecord-00000-of-00001"), 1),
    )


def test_what_is_no_data_set_is_named(tmp_path):
    (tmp_path / "bridge").mkdir()
    message = r"There is no folder .*nowhere/1\.0\.0\. .* holds \['bridge'\]\."
    with pytest.raises(ValueError, match=message):
        open_rlds(tmp_path / "nowhere" / "1.0.0")
    (tmp_path / "bridge").rmdir()
    with pytest.raises(ValueError, match=r"holds no RLDS data set.*it is empty"):
        open_rlds(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"it holds \['notes.txt'\]"):
        open_rlds(tmp_path)
    fake.write_dataset(tmp_path, name="one")
    fake.write_dataset(tmp_path, name="two")
    with pytest.raises(ValueError, match=r"several.*'one/1.0.0', 'two/1.0.0'"):
        open_rlds(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    folder = fake.write_dataset(tmp_path)
    (folder / "fake-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(
        ValueError, match=r"'train' .*lacks 1 of its 2 .*00001-of-00002"
    ):
        open_rlds(folder)


def test_other_formats_are_refused(tmp_path):
    folder = fake.write_dataset(tmp_path)
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"fileFormat": "array_record"}))
    with pytest.raises(ValueError, match="'array_record'; only 'tfrecord'"):
        open_rlds(folder)
    path.write_text(json.dumps(info))
    (folder / "features.json").write_text('{"type": "x", "content": "{}"}')
    with pytest.raises(ValueError, match="not in the form"):
        open_rlds(folder)
    images = {"featuresDict": {"features": {"image": {"image": {}}}}}
    (folder / "features.json").write_text(json.dumps(images))
    with pytest.raises(ValueError, match=r"not RLDS.*\['image'\]"):
        open_rlds(folder)


def test_shards_are_found_without_lengths(tmp_path):
    folder = fake.write_dataset(tmp_path)
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text())
    for split in info["splits"]:
        del split["shardLengths"], split["filepathTemplate"]
    path.write_text(json.dumps(info))
    shards = open_rlds(folder).splits["train"]
    assert [shard.num_examples for shard in shards] == [None, None]
    assert shards[1].path.endswith("fake-train.tfrecord-00001-of-00002")


def test_fields_of_different_lengths_are_no_episode(tmp_path):
    features = open_rlds(fake.write_dataset(tmp_path)).features
    payload = encode_example(
        {"steps/action": np.zeros(8), "steps/reward": np.zeros(3, np.float32)}
    )
    with pytest.raises(ValueError, match=r"differ.*'steps/action': 2.*reward': 3"):
        episode_from_record(payload, features)
    payload = encode_example({"steps/action": np.zeros(7)})
    with pytest.raises(ValueError, match="no multiple of the 4"):
        episode_from_record(payload, features)
    payload = encode_example({"steps/action": [b"text"]})
    with pytest.raises(ValueError, match="tensor but stored as bytes"):
        episode_from_record(payload, features)


def test_a_camera_without_images_has_empty_spans(tmp_path):
    features = open_rlds(fake.write_dataset(tmp_path)).features
    payload = encode_example({"steps/action": np.zeros(8)})
    spans = episode_from_record(payload, features).images["steps/observation/image"]
    np.testing.assert_array_equal(spans, np.zeros((2, 2)))
