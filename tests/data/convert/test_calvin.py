"""CALVIN's folders, and its annotations, which are a pickle."""

import collections
import os
import pickle

import numpy as np
import pytest

from tests import fake
from tests.data.convert import sources
from vla_jax.data.convert.calvin import read_annotations, read_layout
from vla_jax.data.convert.conversion import convert
from vla_jax.data.convert.object_arrays import read_objects
from vla_jax.data.image import decode
from vla_jax.data.standardize import DATASETS

ANNOTATIONS = "training/lang_annotations/auto_lang_ann.npy"


def test_every_annotated_stretch_is_an_episode_of_the_entry(tmp_path):
    root = sources.write_calvin(tmp_path / "task_D_D")
    folder, spec = convert(read_layout(root), tmp_path, "calvin", progress=False)
    assert spec is None and not (folder.parent / "my_dataset.py").exists()
    index = fake.open_index(folder, DATASETS["calvin"])
    splits = [index.split_episodes(name) for name in ("train", "val")]
    assert [len(episodes) for episodes in splits] == [2, 1]
    np.testing.assert_array_equal(index.num_episode_steps, [3, 2, 2])
    assert [index.instructions(e)[0] for e in (0, 3, 5)] == [
        *sources.TASKS,
        "pick the cube",
    ]
    # Steps 3, 4, 5, then 5, 6; and 0, 1 of the other folder.
    wanted = np.array([3, 4, 5, 5, 6, 0, 1])
    is_open = (wanted % 2 == 0).astype(np.float32)
    np.testing.assert_allclose(index.action[:, 0], wanted / 10, atol=1e-6)
    np.testing.assert_array_equal(index.action[:, 6], is_open)
    assert index.proprio.shape == (7, 7)
    np.testing.assert_array_equal(index.proprio[:, :3], np.stack([wanted] * 3, 1))
    np.testing.assert_array_equal(index.proprio[:, 6], is_open)
    picture = decode(index.read_image("wrist", 4))
    np.testing.assert_allclose(picture, sources.picture(1, 6, (8, 8)), atol=6)


def test_one_split_alone_is_training_data(tmp_path):
    root = sources.write_calvin(tmp_path / "task_D_D")
    (alone,) = {key.split for key in read_layout(root / "training").episodes}
    assert alone == "train"
    (held_out,) = {key.split for key in read_layout(root / "validation").episodes}
    assert held_out == "val"


def test_annotations_are_what_numpy_reads(tmp_path):
    path = sources.write_calvin(tmp_path) / ANNOTATIONS
    found, expected = read_objects(path), np.load(path, allow_pickle=True).item()
    assert found["language"]["ann"] == expected["language"]["ann"]
    assert found["info"]["indx"] == expected["info"]["indx"]
    embedding = found["language"]["emb"]
    np.testing.assert_array_equal(embedding, expected["language"]["emb"])
    assert embedding.dtype == np.float32
    first = read_annotations(path)[0]
    assert (first.first, first.last, first.task) == (3, 5, "task_0")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_of_all_kinds_are_read(tmp_path, protocol):
    content = {
        "objects": np.array([["a", None], [(1, 2.5), b"x"]], object),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "words": np.array(["open", "shut"]),
        "big": np.array([1, 2], ">i2"),
        "one": np.float32(0.5),
        "empty": np.zeros((0, 3), np.uint8),
    }
    array = np.empty((), object)
    array[()] = content
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, dict(descr="|O", fortran_order=False, shape=())
        )
        pickle.dump(array, file, protocol=protocol)
    found = read_objects(tmp_path / "a.npy")
    assert set(found) == set(content)
    for key, value in content.items():
        np.testing.assert_array_equal(found[key], value)
    assert found["objects"][1, 0] == (1, 2.5) and found["one"].dtype == np.float32


def test_plain_arrays_need_no_pickle(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    np.testing.assert_array_equal(read_objects(tmp_path / "a.npy"), [0, 1, 2])


class Runs:
    """Would make a folder when it is opened."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_refused_and_does_not_run(tmp_path):
    np.save(tmp_path / "a.npy", {"language": Runs(tmp_path / "made")})
    with pytest.raises(
        ValueError, match=r"asks for (posix|nt)\.mkdir, which is no part"
    ):
        read_objects(tmp_path / "a.npy")
    assert not (tmp_path / "made").exists()
    np.save(tmp_path / "b.npy", {"info": collections.Counter("a")})
    with pytest.raises(ValueError, match=r"collections\.Counter"):
        read_objects(tmp_path / "b.npy")


def test_damaged_files_are_named(tmp_path):
    path = sources.write_calvin(tmp_path) / ANNOTATIONS
    content = path.read_bytes()
    for size in (3, 60, 200, len(content) - 3):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"auto_lang_ann\.npy is"):
            read_objects(path)
    with pytest.raises(ValueError, match="There is no file"):
        read_objects(tmp_path / "absent.npy")


def test_mistakes_are_sentences(tmp_path):
    with pytest.raises(ValueError, match="a folder such as task_ABC_D"):
        read_layout(tmp_path)
    root = sources.write_calvin(tmp_path / "task_D_D")
    with pytest.raises(ValueError, match="--cameras and --instruction do not apply"):
        read_layout(root, instruction="go")
    (root / "training" / "episode_0000004.npz").unlink()
    with pytest.raises(ValueError, match=r"0:task_0:3-5.*no step .*episode_0000004"):
        convert(read_layout(root), tmp_path, "calvin", progress=False)
    np.save(root / ANNOTATIONS, {"language": {"ann": ["a"], "task": []}})
    with pytest.raises(ValueError, match=r"no annotation of CALVIN's.*'info'"):
        read_layout(root)
    content = {"language": {"ann": ["a"], "task": ["b"]}, "info": {"indx": []}}
    np.save(root / ANNOTATIONS, content)
    with pytest.raises(ValueError, match="0 stretches of steps for 1 instructions"):
        read_layout(root)
