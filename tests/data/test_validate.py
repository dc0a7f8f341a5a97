"""Validation leaves good data alone, writes its reports, and fails on errors."""

import base64
import html.parser
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import fake, fake_arm
from vla_jax.data.index import open_index
from vla_jax.data.validate import validate, write_reports

LAUNCH = Path(__file__).parents[2] / "launch" / "index.py"


class _Page(html.parser.HTMLParser):
    """Collects the pictures and the words of a page."""

    def __init__(self, content):
        super().__init__()
        self.pictures, self.tags, self.words = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            kind, data = dict(attributes)["src"].split(";base64,")
            assert kind == "data:image/jpeg"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))

    def handle_data(self, data):
        self.words.append(data.strip())


def test_good_data_has_no_findings(tmp_path):
    report = fake_arm.check(tmp_path)
    assert fake_arm.problems(report) == []
    assert report.summary == "0 errors, 0 warnings, 0 skipped, 27 ok"
    assert len(set(finding.check for finding in report.findings)) == 27
    assert "5 episodes, 120 steps" in report.table


def test_the_reports_have_the_findings_and_the_pictures(tmp_path):
    def spoil(number, steps):
        if number == 3:
            steps["image"][:] = steps["image"][0]

    folder = fake_arm.write_arm(tmp_path / "data", spoil)
    report, sample = validate(open_index(folder, fake_arm.ARM, progress=False))
    path = write_reports(tmp_path / "out", report, sample)
    page = _Page(path.read_text())
    # The suspicious episode, and four on the contact sheet; all dimensions.
    assert len(page.pictures) == 1 + 4
    assert page.tags.count("svg") == 7 + 8 + 1
    assert {picture.height for picture in page.pictures} == {144 + 18}
    assert "http" not in path.read_text().replace("http-equiv", "")
    for finding in report.findings:
        assert finding.sentence in page.words
    assert "frozen images: episode 3 (train), “lift the cup”, 24 steps" in page.words
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["counts"] == {"error": 0, "warning": 1, "skipped": 0, "ok": 26}
    assert content["findings"][0] == {
        "level": "warning",
        "check": "frozen images",
        "sentence": "Camera 'primary' shows the same image throughout 1 of 5 sampled "
        "episodes, though the robot moves.",
        "remedy": "The camera hung: leave these episodes out.",
        "episodes": [3],
    }
    assert content["sampled_episodes"] == [0, 1, 2, 3, 4]
    assert content["statistics"]["action"]["count"] == 96


def _run(*arguments):
    command = [sys.executable, LAUNCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_reports_and_fails_on_errors(tmp_path):
    folder = fake.write_dataset(tmp_path / "good", lengths=(6, 8, 7))
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
    good = _run(f"--data_dir={tmp_path / 'good'}", "--validate")
    assert good.returncode == 0, good.stderr
    assert "camera primary: steps/observation/image, 8x8x3 uint8 jpeg" in good.stdout
    assert "\n0 errors, " in good.stdout
    written = folder / "vla_index" / "metaworld-report"
    assert f"Report: {written / 'report.html'}" in good.stdout
    assert (written / "report.json").exists()
    bad = _run(
        f"--data_dir={folder}",
        "--validate",
        f"--spec={robot}:ROBOT",
        "--validate_episodes=2",
        f"--validate_out={tmp_path / 'out'}",
    )
    assert bad.returncode == 1
    assert "ERROR    gripper range: The gripper goes from -1 to 1" in bad.stdout
    assert "Checks of 2 of 4 episodes, drawn at random:" in bad.stdout
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["error"]


def test_data_that_cannot_be_indexed_are_reported_too(tmp_path):
    def spoil(number, steps):
        steps["action"][0, 0] = np.nan

    folder = fake_arm.write_arm(tmp_path, spoil)
    spec = f"{fake_arm.__file__}:ARM"
    done = _run(f"--data_dir={folder}", f"--spec={spec}", "--validate")
    assert done.returncode == 1
    assert "5 of 5 sampled episodes fail alike: action of data set 'arm'" in done.stdout
    assert (folder / "vla_index" / "arm-report" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_dir={empty}", "--validate"], "holds no RLDS data set"),
        (["--data_dir={empty}/none", "--validate"], "There is no folder"),
        (["--data_dir={data}", "--spec=metaword"], "did you mean 'metaworld'?"),
        (["--data_dir={data}", "--validate_out=x"], "--validate_out needs --validate."),
        (["--data_dir={data}", "--validate", "--validate_episodes=-1"], "-1"),
    ],
)
def test_mistakes_are_answered_with_a_sentence(tmp_path, arguments, message):
    places = {"empty": tmp_path / "empty", "data": tmp_path / "data"}
    places["empty"].mkdir()
    fake.write_dataset(places["data"])
    done = _run(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
