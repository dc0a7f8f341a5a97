"""LeRobot version 3, converted and read back by the index."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import fake
from tests.data.convert import sources
from vla_jax.data.convert.conversion import convert
from vla_jax.data.convert.lerobot import read_frames, read_layout
from vla_jax.data.image import decode
from vla_jax.data.standardize import resolve_spec


def _convert(layout, out, **options):
    folder, spec = convert(layout, out, "robot", progress=False, **options)
    return fake.open_index(folder, resolve_spec(f"{spec}:DATASET"))


@pytest.mark.parametrize("dtype", ["video", "image"])
def test_every_episode_and_frame_arrives(tmp_path, dtype):
    root = sources.write_lerobot(tmp_path / "so101", (4, 3, 2), dtype=dtype)
    index = _convert(read_layout(root), tmp_path)
    assert index.num_episode_steps.tolist() == [4, 3, 2]
    assert index.counts["episodes"] == {"train": 2, "val": 1}
    assert index.spec.control_hz == 10
    assert index.cameras == ("primary",)
    assert index.spec.action == ("absolute", "gripper")
    assert index.action[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    # 0 to 50 in meta/stats.json becomes closed to open
    np.testing.assert_allclose(index.action[:4, 1], [0, 0.2, 0.4, 0.6])
    assert index.proprio[:4].tolist() == [[0, -1], [1, -1], [2, -1], [3, -1]]
    assert [index.instructions(step) for step in (0, 4, 7)] == [
        ["pick the cube"],
        ["push the cube"],
        ["pick the cube"],
    ]
    frames = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    for step, (episode, frame) in enumerate(frames):
        image = decode(index.read_image("primary", step)).astype(int)
        assert image.shape == (16, 24, 3)
        assert (
            np.abs(image - np.minimum(sources.picture(episode, frame), 255)).max() < 8
        )


def test_resize(tmp_path):
    root = sources.write_lerobot(tmp_path / "so101")
    index = _convert(read_layout(root), tmp_path, resize=(8, 12))
    image = decode(index.read_image("primary", 5)).astype(int)
    assert np.abs(image - sources.picture(1, 1, (8, 12))).max() < 8


def test_one_instruction_for_all(tmp_path):
    root = sources.write_lerobot(tmp_path / "so101")
    (root / "meta" / "tasks.parquet").unlink()
    index = _convert(read_layout(root, instruction="tidy up"), tmp_path)
    assert index.languages == ["tidy up"]


def test_frames_are_found_by_time(tmp_path):
    path = tmp_path / "a.mp4"
    sources.write_video(path, [sources.picture(0, t) for t in range(5)])
    green = [f[0, 0, 1] for f in read_frames(path, np.array([0.1, 0.3]), 0.05)]
    assert np.abs(np.array(green, int) - [60, 140]).max() < 8
    with pytest.raises(
        ValueError, match=r"no frame within 0.0500 s of 0.5000 s.*step 1"
    ):
        list(read_frames(path, np.array([0.4, 0.5]), 0.05))
    path.write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"a.mp4 cannot be read"):
        list(read_frames(path, np.array([0.1]), 0.05))


def test_other_versions_are_refused_with_the_remedy(tmp_path):
    root = sources.write_lerobot(tmp_path / "so101", version="v2.1")
    with pytest.raises(ValueError, match=r"version v2.1.*convert_dataset_v21_to_v30"):
        read_layout(root)
    with pytest.raises(ValueError, match=r"no LeRobot data set: no meta/info.json"):
        read_layout(tmp_path)


def test_what_lacks_is_named(tmp_path):
    root = sources.write_lerobot(tmp_path / "so101")
    with pytest.raises(ValueError, match=r"no feature \['x'\].*--state.*observation"):
        read_layout(root, state=["x"])
    layout = read_layout(root)
    video = root / "videos/observation.images.top/chunk-000/file-000.mp4"
    video.unlink()
    with pytest.raises(ValueError, match=r"file-000.parquet:0 cannot be.*file-000.mp4"):
        convert(layout, tmp_path, "robot", progress=False)
    tasks = root / "meta/tasks.parquet"
    pq.write_table(pa.table({"task_index": [0], "task": ["go"]}), tasks)
    episode = read_layout(root)
    with pytest.raises(ValueError, match=r"Task 1 of .* has no instruction"):
        episode.read(episode.episodes[1])
    tasks.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"tasks.parquet cannot be read as Parquet"):
        read_layout(root)


def test_a_length_that_differs_is_named(tmp_path):
    root = sources.write_lerobot(tmp_path / "so101")
    file = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).slice(0, 6), file)
    layout = read_layout(root)
    with pytest.raises(ValueError, match=r"has 2 steps of it, meta/episodes says 3"):
        layout.read(layout.episodes[1])


def test_depth_videos_are_left_out(tmp_path):
    root = sources.write_lerobot(tmp_path / "so101")
    path = root / "meta" / "info.json"
    info = json.loads(path.read_text())
    depth = {"dtype": "video", "shape": [16, 24, 3], "info": {}}
    depth["info"]["video.is_depth_map"] = True
    info["features"]["observation.images.depth"] = depth
    path.write_text(json.dumps(info))
    assert list(read_layout(root).image_size) == ["observation.images.top"]
