"""From a config to a video: MSACT is trained, saved, restored and drawn."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from absl import flags

from tests import fake_aloha
from vla_jax.train.loop import train
from vla_jax.visualize.inspection import inspect_episode

ROOT = Path(__file__).parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A data set and the folder of a run of `configs/msact.py:debug` on it."""
    folder = tmp_path_factory.mktemp("visualize")
    data = fake_aloha.write(folder)
    config = load(ROOT / "configs/msact.py").get_config("debug")
    config.data.datasets = (dict(path=str(data), spec=fake_aloha.NAME),)
    config.train.update(steps=2, eval_every=0, save_every=2, tensorboard=False)
    train(config, folder / "run")
    return data, folder / "run"


@pytest.fixture
def launch(monkeypatch):
    before = set(flags.FLAGS)
    module = load(ROOT / "launch/visualize.py")

    def run(*arguments):
        argv = ["launch/visualize.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        module.main(flags.FLAGS(argv))

    yield run
    flags.FLAGS.unparse_flags()
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def test_every_step_has_points_their_future_and_maps(run):
    data, workdir = run
    found = inspect_episode(workdir, str(data), episode=0)
    assert found.images["top"].shape == (10, 32, 48, 3)
    x, y = fake_aloha.square(9, 2)  # the square of the last step of the third episode
    assert found.images["top"][9, y + 2, x + 2, 0] > 200
    assert found.points["top"].shape == (10, 2, 2)
    assert found.future_points["top"].shape == (10, 8, 2, 2)
    np.testing.assert_allclose(found.maps["top"].sum((2, 3)), 1, rtol=1e-4)
    assert found.instruction == "follow the square"
    assert found.steps_per_second == 50


@pytest.mark.parametrize("command", ["points", "attention"])
def test_the_video_has_a_frame_for_every_step(run, launch, tmp_path, command):
    data, workdir = run
    out = tmp_path / "out.mp4"
    launch(command, f"--checkpoint={workdir}", f"--data_dir={data}", f"--out={out}")
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 10


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--episode=3", "Split 'validation' has the episodes 0 to 0, no 3"),
        ("--step=7", "no step 7; saved steps are"),
        ("--out=video.gif", "A video is written as .mp4"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(run, launch, argument, message):
    data, workdir = run
    with pytest.raises(SystemExit, match=message):
        launch(
            "points",
            *(f"--checkpoint={workdir}", f"--data_dir={data}", "--out=a.mp4"),
            argument,
        )


@pytest.mark.parametrize(
    "command, message",
    [
        ("maps", "Name one of ['points'"),
        ("residuals", "error: Checkpoint folder nowhere does not exist."),
    ],
)
def test_mistakes_are_one_sentence(command, message, tmp_path):
    arguments = [command, "--checkpoint=nowhere", f"--out={tmp_path}"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch/visualize.py"), *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
