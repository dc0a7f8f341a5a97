"""A conversion continues where it was, and appears in one step."""

import dataclasses

import numpy as np
import pytest

from tests import fake
from tests.data.convert import sources
from vla_jax.data.batch import make_batch
from vla_jax.data.convert import lerobot
from vla_jax.data.convert.conversion import convert, encode_picture
from vla_jax.data.convert.hdf5 import read_layout
from vla_jax.data.convert.layout import feature_name, standard_cameras
from vla_jax.data.image import decode
from vla_jax.data.source import open_source


def _counted(layout, fail=()):
    """The layout with a log of what is read; some episodes cannot be."""
    log = []

    def read(key):
        log.append(key.name)
        if key.name in fail:
            raise OSError("the disk is gone")
        return layout.read(key)

    return dataclasses.replace(layout, read=read), log


def test_an_interrupted_conversion_continues(tmp_path):
    layout = read_layout(sources.write_libero(tmp_path / "a.hdf5", (3, 2, 1)))
    broken, log = _counted(layout, fail=("demo_2",))
    with pytest.raises(ValueError, match=r"a.hdf5:demo_2 cannot.*the disk is gone"):
        convert(broken, tmp_path, "robot", progress=False)
    assert log == ["demo_0", "demo_1", "demo_2"]
    assert not (tmp_path / "robot" / "1.0.0").exists()
    repaired, log = _counted(layout)
    folder, _ = convert(repaired, tmp_path, "robot", progress=False)
    assert log == ["demo_2"]
    assert not list(tmp_path.glob(".robot*"))
    whole, _ = convert(layout, tmp_path / "again", "robot", progress=False)
    for file in whole.iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("form", ["hdf5", "lerobot"])
def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path, form):
    if form == "hdf5":
        layout = read_layout(sources.write_libero(tmp_path / "a.hdf5", (3, 2, 1)))
    else:
        layout = lerobot.read_layout(sources.write_lerobot(tmp_path / "so", (4, 3, 2)))
    one, three = (
        convert(layout, tmp_path / str(n), "robot", num_threads=n, progress=False)[0]
        for n in (1, 3)
    )
    assert len(list(one.iterdir())) >= 3
    for file in one.iterdir():
        assert (three / file.name).read_bytes() == file.read_bytes()


def test_other_settings_start_anew(tmp_path):
    file = sources.write_libero(tmp_path / "a.hdf5")
    broken, _ = _counted(read_layout(file), fail=("demo_1",))
    with pytest.raises(ValueError, match="demo_1"):
        convert(broken, tmp_path, "robot", progress=False)
    layout, log = _counted(read_layout(file, instruction="go"))
    convert(layout, tmp_path, "robot", progress=False)
    assert log == ["demo_0", "demo_1"]
    assert not list(tmp_path.glob(".robot*"))


def test_a_finished_data_set_is_not_overwritten_nor_is_its_spec(tmp_path):
    layout, log = _counted(read_layout(sources.write_libero(tmp_path / "a.hdf5")))
    folder, spec = convert(layout, tmp_path, "robot", progress=False)
    log.clear()
    with pytest.raises(ValueError, match="exists already"):
        convert(layout, tmp_path, "robot", progress=False)
    assert log == []
    spec.write_text("mine")
    folder.rename(tmp_path / "elsewhere")
    assert convert(layout, tmp_path, "robot", progress=False)[1].read_text() == "mine"


def test_training_reads_what_was_converted(tmp_path):
    layout = read_layout(sources.write_libero(tmp_path / "a.hdf5", (3, 4)))
    folder, spec = convert(layout, tmp_path, "robot", progress=False)
    dataset = {"path": str(folder), "spec": f"{spec}:DATASET"}
    source = open_source(fake.data_config(datasets=(dataset,)))
    sizes = source.sizes("train")[0], source.sizes("validation")[0]
    assert sorted(sizes) == [3, 4]  # one of two episodes is held out
    batch = make_batch(source, np.zeros(2, np.int32), np.arange(2))
    assert batch["observation"]["image_mask"]["wrist"][:, -1].all()
    assert batch["action"].shape == (2, 3, 7)
    assert batch["task"]["token_mask"].any(axis=1).all()


def test_pictures_are_turned_and_resized():
    image = np.zeros((8, 16, 3), np.uint8)
    image[:4] = 250
    as_jpeg = sources.jpeg(image)
    assert encode_picture(as_jpeg, resize=None, rotate=False) == as_jpeg
    assert encode_picture(as_jpeg, resize=(8, 16), rotate=False) == as_jpeg
    for source in (image, as_jpeg):
        turned = decode(encode_picture(source, resize=(4, 4), rotate=True))
        assert turned.shape == (4, 4, 3)
        assert turned[0].max() < 20 and turned[3].min() > 230
    gray = sources.jpeg(image[:, :, 0])
    assert decode(encode_picture(gray, resize=None, rotate=False)).shape == (8, 16, 3)
    with pytest.raises(ValueError, match="neither JPEG nor PNG"):
        encode_picture(b"no picture", resize=None, rotate=False)


def test_cameras_get_standard_names():
    assert standard_cameras(["cam_high", "cam_low", "cam_left_wrist", "cam_x"]) == {
        "primary": "cam_high",
        "secondary": "cam_low",
        "wrist": "cam_left_wrist",
        "cam_x": "cam_x",
    }
    assert standard_cameras(["eye_in_hand_rgb", "hand_2"]) == {
        "wrist": "eye_in_hand_rgb",
        "hand_2": "hand_2",
    }
    assert feature_name("observation.images.top-left") == "top_left"
    assert feature_name("agentview_rgb") == "agentview_rgb"
