"""HDF5 of robomimic, LIBERO and ALOHA, converted and read back by the index."""

import json

import h5py
import numpy as np
import pytest

from tests import fake
from tests.data.convert import sources
from vla_jax.data.convert.conversion import convert
from vla_jax.data.convert.hdf5 import read_layout
from vla_jax.data.image import decode
from vla_jax.data.rlds import open_rlds
from vla_jax.data.standardize import resolve_spec


def _convert(layout, out, **options):
    """The index of a converted data set, through the spec file that comes with it."""
    folder, spec = convert(layout, out, "robot", progress=False, **options)
    return fake.open_index(folder, resolve_spec(f"{spec}:DATASET"))


def _assert_picture(index, camera, step, expected):
    image = decode(index.read_image(camera, step))
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= 4


def test_libero(tmp_path):
    file = sources.write_libero(tmp_path / "a_demo.hdf5", lengths=(3, 2, 2))
    layout = read_layout(file)
    assert layout.control_hz == 20
    index = _convert(layout, tmp_path)
    assert index.num_episode_steps.tolist() == [3, 2, 2]
    assert index.spec.action == ("relative",) * 6 + ("gripper",)
    assert index.action[:, 0].tolist() == [0, 1, 2, 10, 11, 20, 21]
    assert index.action[:3, -1].tolist() == [1, 0, 0]  # -1 was open
    assert index.proprio[0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3]
    assert index.languages == ["open the drawer"]
    assert index.cameras == ("primary", "wrist")
    _assert_picture(index, "primary", 4, sources.picture(1, 1))


def test_libero_language_may_be_a_list_of_letters_in_quotes(tmp_path):
    letters = list('"put the bowl on the plate"')
    file = sources.write_libero(tmp_path / "a.hdf5", instruction=letters)
    layout = read_layout(file)
    episode = layout.read(layout.episodes[0])
    assert episode.language == ["put the bowl on the plate"] * 3


def test_robomimic_masks_become_splits_and_absolute_control_is_seen(tmp_path):
    file = sources.write_robomimic(tmp_path / "low_dim.hdf5")
    layout = read_layout(file, instruction="lift the cube")
    assert [(key.name, key.split) for key in layout.episodes] == [
        ("demo_0", "train"),
        ("demo_2", "val"),
        ("demo_10", "train"),
    ]
    assert layout.action == ("absolute",) * 6 + ("gripper",)
    assert (layout.control_hz, layout.state_dim) == (15.0, 9)
    index = _convert(layout, tmp_path)
    assert index.counts["episodes"] == {"train": 2, "val": 1}
    assert index.languages == ["lift the cube"]
    assert index.action[:, 0].tolist() == pytest.approx([0, 0, 1, 1, 0.2, 0.2])


@pytest.mark.parametrize("compress", [False, True])
def test_aloha(tmp_path, compress):
    folder = sources.write_aloha(tmp_path / "aloha", compress=compress)
    layout = read_layout(folder, instruction="slide the ziploc")
    index = _convert(layout, tmp_path)
    assert index.cameras == ("primary", "wrist", "cam_right_wrist")
    assert index.spec.control_hz == 50
    assert index.spec.action == ("absolute",) * 13 + ("gripper",)
    train, held_out = index.split_episodes("train"), index.split_episodes("val")
    assert len(train) == len(held_out) == 1
    np.testing.assert_allclose(index.action[:, 0], [0, 0.1, 0.2, 1, 1.1, 1.2])
    np.testing.assert_allclose(index.action[:, 13], [0, 0.1, 0.2, 1, 1, 1])  # in [0, 1]
    assert index.proprio[:, 0].tolist() == [0, -1, -2, 1, 0, -1]
    _assert_picture(index, "wrist", 5, sources.picture(1, 2))


def test_compressed_pictures_of_the_right_size_are_kept_byte_by_byte(tmp_path):
    folder = sources.write_aloha(tmp_path / "aloha", compress=True)
    index = _convert(read_layout(folder, instruction="go"), tmp_path)
    assert index.read_image("primary", 1) == sources.jpeg(sources.picture(0, 1))
    small = _convert(
        read_layout(folder, instruction="go"), tmp_path / "small", resize=(8, 6)
    )
    _assert_picture(small, "primary", 4, sources.picture(1, 1, (8, 6)))


def test_the_steps_are_rlds(tmp_path):
    file = sources.write_libero(tmp_path / "a.hdf5")
    folder, _ = convert(read_layout(file), tmp_path, "robot", progress=False)
    features = open_rlds(folder).features
    assert {"steps/is_first", "steps/is_terminal", "steps/discount"} <= set(features)
    assert features["steps/observation/image_agentview_rgb"].shape == (16, 24, 3)
    info = json.loads((folder / "dataset_info.json").read_text())
    assert "robomimic" in info["description"]


def test_chosen_states_and_cameras(tmp_path):
    file = sources.write_libero(tmp_path / "a.hdf5")
    layout = read_layout(file, state=["joint_states"], cameras=["eye_in_hand_rgb"])
    index = _convert(layout, tmp_path)
    assert index.cameras == ("wrist",)
    assert index.proprio.shape == (5, 7)


def test_mistakes_are_named(tmp_path):
    file = sources.write_libero(tmp_path / "a.hdf5", instruction="")
    with pytest.raises(
        ValueError, match=r"a.hdf5:demo_0 has no instruction.*--instruc"
    ):
        convert(read_layout(file), tmp_path, "robot", progress=False)
    with pytest.raises(ValueError, match=r"no observation \['x'\].*--state.*ee_pos"):
        read_layout(file, state=["x"])
    with pytest.raises(ValueError, match=r"no observation \['x'\].*--cameras"):
        read_layout(file, cameras=["x"])
    with pytest.raises(ValueError, match="There is no HDF5 file"):
        read_layout(tmp_path / "none")
    (tmp_path / "b.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"b.hdf5 cannot be read as HDF5"):
        read_layout(tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "c.hdf5", "w") as other:
        other["foo"] = [1]
    with pytest.raises(ValueError, match=r"neither robomimic's .*it has \['foo'\]"):
        read_layout(tmp_path / "c.hdf5")


def test_pictures_of_two_sizes_need_resize(tmp_path):
    sources.write_aloha(tmp_path / "aloha", compress=False)
    with h5py.File(tmp_path / "aloha" / "episode_1.hdf5", "a") as file:
        del file["observations/images/cam_high"]
        file["observations/images/cam_high"] = np.zeros((3, 4, 4, 3), np.uint8)
    layout = read_layout(tmp_path / "aloha", instruction="go")
    with pytest.raises(ValueError, match=r"episode_1.hdf5 cannot .*--resize=H,W"):
        convert(layout, tmp_path, "robot", progress=False)
    index = _convert(layout, tmp_path, resize=(8, 8))
    assert index.num_steps == 6
