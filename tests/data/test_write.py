"""What the writer writes is what tfds reads under TensorFlow."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests import fake
from vla_jax.data.rlds import episode_from_record, open_rlds
from vla_jax.data.tfrecord import iterate_records
from vla_jax.data.write import Image, RLDSWriter, Tensor, Text, encode_episode

FEATURES = {
    "observation": {
        "image": Image(4, 6),
        "depth": Image(4, 6, 1, encoding="png", dtype=np.uint16),
        "png": Image(4, 6, encoding="png"),
        "state": Tensor(np.float64, (2, 3)),
    },
    "action": Tensor(np.float32, (4,)),
    "count": Tensor(np.int32),
    "big": Tensor(np.uint64),
    "small": Tensor(np.uint8, (2,)),
    "language_instruction": Text(),
    "is_last": Tensor(np.bool_),
}


def _steps(length: int) -> dict:
    rng = np.random.default_rng(length)
    return {
        "observation": {
            "image": rng.integers(0, 255, (length, 4, 6, 3)).astype(np.uint8),
            "depth": rng.integers(0, 65535, (length, 4, 6, 1)).astype(np.uint16),
            "png": rng.integers(0, 255, (length, 4, 6, 3)).astype(np.uint8),
            "state": rng.integers(0, 9, (length, 2, 3)) / 4.0,
        },
        "action": rng.normal(size=(length, 4)).astype(np.float32),
        "count": np.arange(-1, length - 1, dtype=np.int32) * 1000,
        "big": np.full(length, 2**63 + 5, np.uint64),
        "small": rng.integers(0, 255, (length, 2)).astype(np.uint8),
        "language_instruction": [f"étape {t}" for t in range(length)],
        "is_last": np.arange(length) == length - 1,
    }


def test_tfds_reads_every_field_back_identically(tmp_path):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    metadata = {"file": "a.hdf5", "success": True, "pose": np.ones(3, np.float32)}
    features = {
        "file": Text(),
        "success": Tensor(np.bool_),
        "pose": Tensor(np.float32, (3,)),
    }
    with RLDSWriter(
        tmp_path, "robot", FEATURES, features, num_shards={"train": 2, "val": 3}
    ) as writer:
        for length in (3, 1, 2):
            writer.write("train", _steps(length), metadata)
        writer.write("val", _steps(4), metadata)
    names = sorted(path.name for path in writer.folder.iterdir())
    assert names == [
        "dataset_info.json",
        "features.json",
        "robot-train.tfrecord-00000-of-00002",
        "robot-train.tfrecord-00001-of-00002",
        "robot-val.tfrecord-00000-of-00001",
    ]

    builder = tfds.builder_from_directory(str(writer.folder))
    assert builder.info.splits["train"].num_examples == 3
    lengths = []
    for split in ("train", "val"):
        for episode in builder.as_dataset(split=split):
            steps = list(episode["steps"].as_numpy_iterator())
            lengths.append(len(steps))
            written = _steps(len(steps))
            assert episode["episode_metadata"]["file"].numpy() == b"a.hdf5"
            assert episode["episode_metadata"]["success"].numpy()
            np.testing.assert_array_equal(
                episode["episode_metadata"]["pose"], [1, 1, 1]
            )
            for t, step in enumerate(steps):
                for key in ("action", "count", "big", "small", "is_last"):
                    assert step[key].dtype == written[key].dtype
                    np.testing.assert_array_equal(step[key], written[key][t])
                assert step["language_instruction"].decode() == f"étape {t}"
                observation = step["observation"]
                for key in ("depth", "png", "state"):
                    expected = written["observation"][key][t]
                    assert observation[key].dtype == expected.dtype
                    np.testing.assert_array_equal(observation[key], expected)
                jpeg = simplejpeg.encode_jpeg(
                    written["observation"]["image"][t], quality=95
                )
                np.testing.assert_array_equal(
                    observation["image"], tf.io.decode_jpeg(jpeg)
                )
    assert sorted(lengths) == [1, 2, 3, 4]


def test_tfds_reads_the_metaworld_schema(tmp_path):
    import tensorflow_datasets as tfds

    folder = fake.write_dataset(tmp_path)
    builder = tfds.builder_from_directory(str(folder))
    episodes = list(builder.as_dataset(split="train"))
    actions = [[step["action"].numpy() for step in e["steps"]] for e in episodes]
    assert [len(steps) for steps in actions] == [3, 5, 4]
    np.testing.assert_array_equal(actions[1][4], fake.action(1, 4))
    assert episodes[2]["episode_metadata"]["attempt"].numpy() == 2


def test_images_that_are_encoded_already_are_stored_as_they_are(tmp_path):
    jpeg = simplejpeg.encode_jpeg(np.full((4, 6, 3), 7, np.uint8), quality=70)
    with RLDSWriter(tmp_path, "robot", {"image": Image(4, 6)}) as writer:
        writer.write("train", {"image": [jpeg, jpeg]})
    data = open_rlds(writer.folder)
    view = Path(data.splits["train"][0].path).read_bytes()
    ((_, payload),) = iterate_records(view, "shard")
    episode = episode_from_record(payload, data.features)
    for offset, length in episode.images["steps/image"]:
        assert bytes(payload[offset : offset + length]) == jpeg


def test_nothing_appears_before_close_and_nothing_remains_after_an_error(tmp_path):
    features = {"action": Tensor(np.float32, (1,))}
    writer = RLDSWriter(tmp_path, "robot", features)
    writer.write("train", {"action": np.zeros((2, 1), np.float32)})
    assert not writer.folder.exists()
    writer.close()
    assert writer.folder.exists()

    with (
        pytest.raises(KeyError),
        RLDSWriter(tmp_path, "robot", features, version="2.0.0") as writer,
    ):
        writer.write("train", {"action": np.zeros((2, 1), np.float32)})
        raise KeyError
    assert [path.name for path in writer.folder.parent.iterdir()] == ["1.0.0"]


def test_an_existing_version_is_not_overwritten(tmp_path):
    fake.write_dataset(tmp_path)
    with pytest.raises(ValueError, match="exists already"):
        fake.write_dataset(tmp_path)


def test_shards_fill_up_or_go_round_robin(tmp_path):
    features = {"action": Tensor(np.int64)}
    for name, options, expected in (
        ("filled", {"episodes_per_shard": 2}, [[0, 1], [2, 3], [4]]),
        ("robin", {"num_shards": {"train": 2}}, [[0, 2, 4], [1, 3]]),
    ):
        with RLDSWriter(tmp_path, name, features, **options) as writer:
            for index in range(5):
                writer.write("train", {"action": [index]})
        data = open_rlds(writer.folder)
        found = []
        for shard in data.splits["train"]:
            records = iterate_records(Path(shard.path).read_bytes(), "shard")
            episodes = [episode_from_record(p, data.features) for _, p in records]
            found.append([int(e.arrays["steps/action"][0]) for e in episodes])
        assert found == expected
        lengths = [shard.num_examples for shard in data.splits["train"]]
        assert lengths == [len(shard) for shard in expected]


def test_the_same_episodes_give_the_same_bytes(tmp_path):
    first = fake.write_dataset(tmp_path / "a")
    second = fake.write_dataset(tmp_path / "b")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"action": np.zeros((2, 3), np.float32)}, r"shape \(3,\).*expected \(2,\)"),
        ({"action": np.zeros((2, 2), np.complex64)}, "dtype complex64"),
        ({"acton": np.zeros((2, 2))}, r"missing \['steps/action'\].*steps/acton"),
        ({"action": np.zeros((0, 2))}, "at least one"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        encode_episode({"action": Tensor(np.float32, (2,))}, None, steps)


def test_an_image_that_does_not_fit_is_refused():
    features = {"image": Image(4, 6)}
    small = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(2, 2, 3\); expected .*\(4, 6, 3\)"):
        encode_episode(features, None, {"image": [small]})
    with pytest.raises(ValueError, match=r"\(2, 2, 3\); expected \(4, 6, 3\)"):
        encode_episode(features, None, {"image": [simplejpeg.encode_jpeg(small)]})
    with pytest.raises(ValueError, match="no jpeg image"):
        encode_episode(features, None, {"image": [b"\x89PNG\r\n\x1a\n"]})
    with pytest.raises(ValueError, match="Unknown image encoding 'gif'"):
        Image(4, 6, encoding="gif")
    with pytest.raises(ValueError, match="uint16 as png"):
        Image(4, 6, dtype=np.uint16)


@pytest.mark.parametrize("encoding", ["none", "bytes", "zlib"])
def test_tensors_can_be_packed(tmp_path, encoding):
    values = np.array([[1, 2], [3, 4], [5, 6]], np.float32) / 7
    features = {"state": Tensor(np.float32, (2,), encoding=encoding)}
    with RLDSWriter(tmp_path, "robot", features) as writer:
        writer.write("train", {"state": values})
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(writer.folder)
    (episode,) = builder.as_dataset(split="train")
    steps = [step["state"].numpy() for step in episode["steps"]]
    np.testing.assert_array_equal(steps, values)


def test_an_unknown_tensor_encoding_lists_the_alternatives():
    with pytest.raises(ValueError, match=r"'gzip'; choose one of \['bytes', 'none'"):
        Tensor(np.float32, encoding="gzip")


def test_tfds_reads_images_of_float32(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    depth = np.array([[[0.1], [2.5]], [[-1], [1e6]]], np.float32)
    features = {"depth": Image(2, 2, 1, "png", np.float32)}
    with RLDSWriter(tmp_path, "robot", features) as writer:
        writer.write("train", {"depth": [depth, depth + 1]})
    builder = tfds.builder_from_directory(writer.folder)
    (episode,) = builder.as_dataset(split="train")
    steps = [step["depth"].numpy() for step in episode["steps"]]
    np.testing.assert_array_equal(steps, [depth, depth + 1])
    encoded = encode_episode(features, {}, {"depth": [depth]}, None)
    image = encoded[encoded.index(b"\x89PNG") :]
    again = encode_episode(features, {}, {"depth": [image]}, None)
    assert image in again
