"""Specs are found, travel between processes, and are checked."""

import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from vla_jax.data.standardize import (
    DATASETS,
    DatasetSpec,
    decode_language,
    resolve_spec,
    standardize_episode,
)

USER_FILE = """
import numpy as np
from vla_jax.data.standardize import DatasetSpec

def double(raw):
    return {
        "proprio": 2 * raw.arrays["steps/observation/state"],
        "action": raw.arrays["steps/action"],
        "language": ["go"],
    }

ROBOT = DatasetSpec(
    name="robot",
    cameras={"primary": "steps/observation/image"},
    action=("relative", "relative", "relative", "absolute"),
    control_hz=10.0,
    standardize=double,
)
"""


def _spec(fields: dict, action=("relative", "gripper")) -> DatasetSpec:
    return DatasetSpec("robot", {}, action, 10.0, lambda raw: fields)


def _fields(**changes) -> dict:
    fields = {"proprio": np.zeros((2, 3)), "action": np.ones((2, 2)), "language": []}
    return fields | changes


RAW = SimpleNamespace(num_steps=2)


def test_metaworld_opens_with_one_and_its_hand_points_down():
    raw = SimpleNamespace(
        num_steps=2,
        arrays={
            "steps/observation/state": np.ones((2, 4), np.float32),
            "steps/action": np.array([[1, 2, 3, -1], [1, 2, 3, 1]], np.float32),
            "steps/observation/wrist_image_extrinsics": np.stack([np.eye(4)] * 2),
        },
        text={"steps/language_instruction": [b"open", b"open"]},
    )
    episode = standardize_episode(DATASETS["metaworld"], raw)
    np.testing.assert_array_equal(episode.action, [[1, 2, 3, 1], [1, 2, 3, 0]])
    np.testing.assert_array_equal(episode.proprio, np.ones((2, 4)))
    assert episode.language == [["open"]]
    # The hand stands at 1, 1, 1 and points down: its x axis is the world's -z.
    half = 0.5**0.5
    np.testing.assert_allclose(episode.pose, [[1, 1, 1, 0, half, 0, half]] * 2)
    assert list(episode.camera) == ["wrist"]
    np.testing.assert_array_equal(episode.camera["wrist"]["extrinsics"][1], np.eye(4))


def test_language_is_of_the_episode_or_of_each_step():
    assert decode_language([b"a", b"a"]) == ["a"]
    assert decode_language([b"a", b"\xff"]) == [["a"], ["\ufffd"]]
    for language, expected in (
        (["one", "two"], [["one", "two"]]),
        ([["one"], []], [["one"], []]),
        (["", " "], [[]]),
        ([], [[]]),
    ):
        episode = standardize_episode(_spec(_fields(language=language)), RAW)
        assert episode.language == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": np.zeros((2, 3))}, r"action of .*'robot' .*\[2, 3\].*\[2, 2\]"),
        ({"action": np.zeros((3, 2))}, r"\[3, 2\]; expected \[2, 2\]"),
        ({"proprio": np.zeros(2)}, r"proprio .*\[2\]"),
        ({"pose": np.zeros((2, 6))}, r"pose .*\[2, 6\]; expected \[2, 7\]"),
        ({"proprio": np.array([[0, 0], [0, np.nan]])}, "nan at step 1, dimension 1"),
        ({"actions": 0}, r"unknown \['actions'\]"),
        ({"language": "go"}, "language .* is a str"),
        ({"language": [["a"]] * 3}, "is a list of 3"),
        ({"language": None}, r"missing \['language'\]"),
        ({"language": 3}, "language .* is a int; expected a list"),
        ({"language": [["a"], [3]]}, "holds something that is no string"),
        ({"proprio": np.zeros(2)}, r"proprio .* shape \[2\]; expected \[2, p\]"),
    ],
)
def test_what_standardize_returns_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        standardize_episode(_spec(_fields(**changes)), RAW)


CAMERAS = {"primary": "steps/image"}


def _camera(camera: dict):
    fields = _fields(camera=camera, success=np.bool_(True))
    spec = DatasetSpec(
        "robot", CAMERAS, ("relative", "gripper"), 10.0, lambda raw: fields
    )
    return standardize_episode(spec, RAW)


def test_only_the_steps_that_standardize_names_are_kept():
    fields = {
        "proprio": np.arange(4)[:, None],
        "action": np.arange(8).reshape(4, 2),
        "language": [["a"], ["b"], ["c"], ["d"]],
        "pose": np.arange(28).reshape(4, 7),
        "camera": {"primary": {"intrinsics": np.stack([np.eye(3)] * 4)}},
        "steps": [1, 3],
    }
    spec = DatasetSpec(
        "robot", CAMERAS, ("relative", "gripper"), 10.0, lambda raw: fields
    )
    episode = standardize_episode(spec, SimpleNamespace(num_steps=4))
    assert episode.steps.tolist() == [1, 3]
    assert episode.proprio.tolist() == [[1], [3]]
    assert episode.action.tolist() == [[2, 3], [6, 7]]
    assert episode.language == [["b"], ["d"]]
    assert episode.pose[:, 0].tolist() == [7, 21]
    assert episode.camera["primary"]["intrinsics"].shape == (2, 3, 3)


@pytest.mark.parametrize("steps", [[], [1, 0], [0, 0], [-1, 0], [2], [0.5], 0])
def test_steps_are_increasing_numbers_of_the_episode(steps):
    with pytest.raises(ValueError, match=r"steps of data set 'robot' .* the 2 steps"):
        standardize_episode(_spec(_fields(steps=steps)), RAW)


def test_matrices_of_an_episode_are_repeated_for_its_steps():
    moving = np.stack([np.eye(4), np.diag([1, 2, 3, 1])])
    episode = _camera({"primary": {"intrinsics": np.eye(3), "extrinsics": moving}})
    matrices = episode.camera["primary"]
    np.testing.assert_array_equal(matrices["intrinsics"], [np.eye(3), np.eye(3)])
    np.testing.assert_array_equal(matrices["extrinsics"], moving)
    assert matrices["intrinsics"].dtype == np.float32
    assert episode.success is True
    plain = standardize_episode(_spec(_fields()), RAW)
    assert plain.camera == {} and plain.success is None


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ({"wrist": {}}, r"no camera 'wrist' of 'robot'; choose one of \['primary'\]"),
        ({"primary": {"pose": np.eye(4)}}, r"'pose'.*\['extrinsics', 'intrinsics'\]"),
        (
            {"primary": {"intrinsics": np.eye(4)}},
            r"intrinsics of camera 'primary'.*\[4, 4\].*\[3, 3\] or \[2, 3, 3\]",
        ),
        ({"primary": {"extrinsics": np.ones((3, 4, 4))}}, r"\[3, 4, 4\]"),
        ({"primary": {"intrinsics": np.full((3, 3), np.nan)}}, "finite"),
        (
            {"primary": {"extrinsics": np.eye(4)[::-1]}},
            r"last row of the extrinsics .* is not \[0.0, 0.0, 0.0, 1.0\]",
        ),
    ],
)
def test_camera_matrices_are_checked(camera, message):
    with pytest.raises(ValueError, match=message):
        _camera(camera)


def test_a_spec_is_checked():
    with pytest.raises(ValueError, match=r"depth_scale for \['front'\]"):
        DatasetSpec("robot", {}, ("relative",), 1.0, dict, depth_scale={"front": 1})
    with pytest.raises(ValueError, match=r"kinds.*'delta'"):
        _spec({}, action=("delta",))
    with pytest.raises(ValueError, match="The gripper comes last"):
        _spec({}, action=("gripper", "relative"))
    with pytest.raises(ValueError, match=r"holds out 1\.0"):
        DatasetSpec("robot", {}, ("relative",), 10.0, dict, holdout=1.0)


def test_unknown_names_list_the_alternatives(tmp_path):
    with pytest.raises(ValueError, match=r"'metawrld'; did you mean 'metaworld'"):
        resolve_spec("metawrld")
    with pytest.raises(ValueError, match=r"There is no file .*robot.py"):
        resolve_spec(f"{tmp_path}/robot.py:ROBOT")
    file = tmp_path / "robot.py"
    file.write_text(USER_FILE)
    with pytest.raises(ValueError, match=r"no DatasetSpec 'BOT'; it has \['ROBOT'\]"):
        resolve_spec(f"{file}:BOT")


def test_a_users_own_spec_reaches_other_processes(tmp_path):
    file = tmp_path / "robot.py"
    file.write_text(USER_FILE)
    spec = resolve_spec(f"{file}:ROBOT")
    assert spec.source == f"{file}:ROBOT"
    (tmp_path / "spec.pkl").write_bytes(pickle.dumps(spec))
    code = (
        "import pickle, sys; spec = pickle.load(open(sys.argv[1], 'rb'));"
        "print(spec.name, spec.standardize.__name__)"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", code, tmp_path / "spec.pkl"], text=True
    )
    assert output == "robot double\n"
    assert pickle.loads(pickle.dumps(DATASETS["metaworld"])) == DATASETS["metaworld"]


def test_an_edited_file_is_read_again(tmp_path):
    file = tmp_path / "robot.py"
    file.write_text(USER_FILE)
    assert resolve_spec(f"{file}:ROBOT").control_hz == 10
    file.write_text(USER_FILE.replace("10.0", "20.0"))
    assert resolve_spec(f"{file}:ROBOT").control_hz == 20
