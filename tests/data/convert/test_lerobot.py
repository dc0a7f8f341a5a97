"""LeRobot version 3, converted and read back by the index."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import fake
from tests.data.convert import sources
from vla_jax.data.convert.conversion import convert
from vla_jax.data.convert.layout import standard_cameras, standard_depth
from vla_jax.data.convert.lerobot import read_layout
from vla_jax.data.convert.video import read_frames
from vla_jax.data.image import decode, decode_depth
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
    command = (
        r"version v2\.1.*python -m lerobot\.scripts\.convert_dataset_v21_to_v30 "
        rf"--repo-id={tmp_path.name}/so101 --root={root} --push-to-hub=false"
    )
    with pytest.raises(ValueError, match=command):
        read_layout(root)
    older = sources.write_lerobot(tmp_path / "old", version="v2.0")
    with pytest.raises(ValueError, match=r"v2\.0.*Bring it to v2\.1 first.*v21_to_v30"):
        read_layout(older)
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


CODES = {"video.depth_min": 0.5, "video.depth_max": 4.5}
LINEAR = CODES | {"video.shift": 0.0, "video.use_log": False}
LOGARITHMIC = CODES | {"video.shift": 0.5, "video.use_log": True}


def _add_depth(root, info, camera="observation.images.top_depth", dtype="video"):
    """A depth camera whose pixels are all code 0, 1365, 2730, 4095, 0, ..."""
    path = root / "meta" / "info.json"
    content = json.loads(path.read_text())
    feature = {"dtype": dtype, "shape": [16, 24, 1], "info": {"is_depth_map": True}}
    feature["info"] |= info
    content["features"][camera] = feature
    path.write_text(json.dumps(content))
    if dtype == "video":
        frames = [np.full((16, 24), 1365 * (t % 4), np.uint16) for t in range(7)]
        sources.write_depth_video(
            root / "videos" / camera / "chunk-000/file-000.mp4", frames
        )
        sources.copy_video_columns(root, "observation.images.top", camera)
    return camera


@pytest.mark.parametrize(
    ("info", "metres"),
    [
        (LINEAR, [0.5, 1.8333, 3.1667, 4.5]),
        # Of 1 to 5 m after the shift, a third of the way is 5 ** (1 / 3) = 1.7100.
        (LOGARITHMIC, [0.5, 1.21, 2.424, 4.5]),
    ],
)
def test_depth_videos_become_depth_cameras(tmp_path, info, metres):
    root = sources.write_lerobot(tmp_path / "so101")
    _add_depth(root, info)
    index = _convert(read_layout(root), tmp_path)
    assert index.cameras == ("primary",) and list(index.spec.depth) == ["primary"]
    for step, expected in enumerate([*metres, *metres[:3]]):
        depth = np.zeros((8, 12), np.float32)
        feature = index.depth_features["primary"]
        decode_depth(index.read_depth("primary", step), feature, depth, None)
        np.testing.assert_allclose(depth, np.full((8, 12), expected), atol=0.0006)


def test_depth_images_keep_their_unit_and_are_turned_with_the_others(tmp_path):
    root = sources.write_lerobot(tmp_path / "so101", dtype="image")
    camera = _add_depth(root, {"depth_unit": "mm"}, dtype="image")
    table = root / "data/chunk-000/file-000.parquet"
    images = [np.full((16, 24), 100 * t, np.uint16) for t in range(7)]
    for image in images:
        image[0, 0] = 7
    cells = [{"bytes": sources.tiff(image), "path": None} for image in images]
    pq.write_table(pq.read_table(table).append_column(camera, pa.array(cells)), table)
    index = _convert(read_layout(root), tmp_path, rotate=True)
    depth = np.zeros((16, 24), np.float32)
    feature = index.depth_features["primary"]
    decode_depth(index.read_depth("primary", 3), feature, depth, None)
    assert depth[0, 0] == np.float32(0.3) and depth[-1, -1] == np.float32(0.007)


def test_a_depth_video_of_unknown_meaning_is_refused(tmp_path):
    root = sources.write_lerobot(tmp_path / "so101")
    camera = _add_depth(root, {"video.depth_min": 0.1})
    message = rf"{camera} is a depth video.*lacks some of.*depth_max.*--cameras"
    with pytest.raises(ValueError, match=message):
        read_layout(root)
    layout = read_layout(root, cameras=["observation.images.top"])
    assert list(layout.image_size) == ["observation.images.top"]
    assert not layout.depth_size


def test_depth_cameras_are_named_after_their_color_camera():
    cameras = standard_cameras(["images.top", "images.hand"])
    names = ["images.hand_depth", "images.depth_top", "images.side_depth"]
    assert standard_depth(names, cameras) == {
        "wrist": "images.hand_depth",
        "primary": "images.depth_top",
        "side_depth": "images.side_depth",
    }
