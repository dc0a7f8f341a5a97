"""Validation finds what would spoil training and leaves good data alone."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from tests import fake, fake_robot
from vla_jax.data.index import open_index
from vla_jax.data.standardize import DatasetSpec
from vla_jax.data.validate import validate
from vla_jax.data.write import Image, RLDSWriter, Tensor, Text

SPEC = DatasetSpec(
    name="robot",
    cameras={"primary": "steps/image"},
    action=("relative", "absolute", "gripper"),
    control_hz=5.0,
    standardize=lambda raw: {
        "proprio": raw.arrays["steps/action"],
        "action": raw.arrays["steps/action"],
        "language": [raw.text["steps/text"][0].decode("utf-8", "replace")],
    },
)


def _findings(tmp_path, spec=SPEC, length=40, image=None, text="go", **columns):
    """Problems of a data set of four episodes, good but for what is given."""
    rng = np.random.default_rng(0)
    features = {
        "image": Image(4, 4),
        "action": Tensor(np.float32, (3,)),
        "text": Text(),
    }
    with RLDSWriter(tmp_path, "robot", features) as writer:
        for _ in range(4):
            pixels = rng.integers(0, 255, (length, 4, 4, 3)).astype(np.uint8)
            values = {
                "move": rng.normal(size=length),
                "place": rng.normal(size=length),
                "gripper": np.arange(length) % 4 < 2,
            }
            action = np.stack(list((values | columns).values()), axis=1)
            steps = {
                "image": pixels if image is None else [image] * length,
                "action": action.astype(np.float32),
                "text": [text] * length,
            }
            writer.write("train", steps)
    table, findings = validate(open_index(writer.folder, spec, progress=False))
    assert "4 episodes" in table
    return findings


def test_good_data_has_no_findings(tmp_path):
    assert _findings(tmp_path) == []


STILL = {"move": np.zeros(40), "place": np.ones(40), "gripper": np.ones(40)}


@pytest.mark.parametrize(
    ("changes", "is_error", "message"),
    [
        ({"gripper": np.arange(40) % 2 * 2 - 1.0}, True, "from -1 to 1; the standard"),
        ({"gripper": np.zeros(40)}, False, "The gripper never moves: it is always 0"),
        ({"gripper": np.arange(40) % 4 >= 2}, False, "begin with a closed gripper"),
        ({"place": np.full(40, 3.0)}, False, "dimension 1 is constant"),
        ({"move": 90 + np.sin(np.arange(40))}, False, "0 is declared relative"),
        ({"text": ""}, False, "100% of the steps have no instruction"),
        ({"text": b"\xff"}, False, "not valid UTF-8"),
        ({"length": 1, "gripper": [1.0]}, False, "have a single step"),
        ({"image": np.zeros((4, 4, 3), np.uint8)}, False, "are of a single color"),
        ({"image": b"\xff\xd8\xff broken"}, True, "cannot be decoded"),
        (STILL, False, "100% of the steps do nothing"),
    ],
)
def test_problems_are_found(tmp_path, monkeypatch, changes, is_error, message):
    if "image" in changes and isinstance(changes["image"], bytes):
        # The writer refuses it; other writers might not.
        monkeypatch.setattr(
            "vla_jax.data.write._encode_image", lambda key, spec, image: image
        )
    found = {finding.problem: finding for finding in _findings(tmp_path, **changes)}
    (problem,) = [problem for problem in found if message in problem]
    assert found[problem].is_error == is_error
    assert found[problem].remedy.endswith(".")


def test_outliers_are_found(tmp_path):
    # One of 240 values in each direction, so that q99 does not see it.
    move = np.sin(np.arange(240))
    move[7] = 1000
    changes = {"place": np.cos(np.arange(240)), "gripper": np.arange(240) % 4 < 2}
    findings = _findings(tmp_path, length=240, move=move, **changes)
    assert any("dimension 0 has outliers" in f.problem for f in findings)


def test_missing_images_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("vla_jax.data.write._encode_image", lambda *args: b"")
    (finding,) = _findings(tmp_path)
    assert finding.is_error
    assert "Camera 'primary' has no image in 160 of 160 steps" in finding.problem


def test_an_image_of_another_size_is_found(tmp_path, monkeypatch):
    other = simplejpeg.encode_jpeg(np.zeros((2, 4, 3), np.uint8))
    monkeypatch.setattr("vla_jax.data.write._encode_image", lambda *args: other)
    (finding,) = _findings(tmp_path)
    assert "has the size (2, 4); the data set states (4, 4)" in finding.problem


def test_no_validation_split_is_found(tmp_path):
    (finding,) = _findings(tmp_path, dataclasses.replace(SPEC, holdout=0.0))
    assert "held out" in finding.problem


def test_the_command_reports_and_fails_on_errors(tmp_path):
    fake.write_dataset(tmp_path / "good")
    robot = tmp_path / "robot.py"
    robot.write_text(
        "import dataclasses\n"
        "from vla_jax.data.standardize import DATASETS\n"
        "def raw_gripper(raw):\n"
        "    fields = DATASETS['metaworld'].standardize(raw)\n"
        "    return fields | {'action': raw.arrays['steps/action']}\n"
        "ROBOT = dataclasses.replace(\n"
        "    DATASETS['metaworld'], name='robot', standardize=raw_gripper)\n"
    )
    command = [sys.executable, Path(__file__).parents[2] / "launch" / "index.py"]
    command += [f"--data_dir={tmp_path / 'good'}", "--validate"]
    good = subprocess.run(command, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    assert "camera primary: steps/observation/image, 8x8x3 uint8 jpeg" in good.stdout
    assert "0 errors" in good.stdout
    bad = subprocess.run(
        [*command, f"--spec={robot}:ROBOT"], capture_output=True, text=True
    )
    assert bad.returncode == 1
    assert "ERROR: The gripper goes from -1 to 1" in bad.stdout


def test_depth_in_other_units_is_found(tmp_path):
    folder = fake_robot.write_robot(tmp_path)

    def problems(**changes):
        spec = dataclasses.replace(fake_robot.ROBOT, **changes)
        findings = validate(open_index(folder, spec, progress=False))[1]
        return [finding.problem for finding in findings if "sees" in str(finding)]

    assert problems() == []
    # Halfway between the steps at 500 and 600 mm, and 7.5 mm for the middle pixel.
    assert problems(depth_scale={"primary": 1.0}) == [
        "Camera 'primary' sees 558 m far in the median."
    ]


def test_depth_that_is_no_depth_is_found(tmp_path):
    folder = fake_robot.write_robot(tmp_path)
    spec = dataclasses.replace(fake_robot.ROBOT, depth={"primary": "steps/image"})
    findings = validate(open_index(folder, spec, progress=False))[1]
    assert findings[0].is_error
    assert "depth image of step 0 cannot be decoded" in findings[0].problem
