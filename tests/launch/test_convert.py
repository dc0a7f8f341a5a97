"""The command that converts."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.convert import sources

ROOT = Path(__file__).parents[2]


def _run(*arguments):
    command = [sys.executable, str(ROOT / "launch" / "convert.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("form", ["hdf5", "lerobot", "calvin"])
def test_a_source_is_converted_and_the_next_command_works(tmp_path, form):
    if form == "hdf5":
        source = sources.write_libero(tmp_path / "a.hdf5")
    elif form == "calvin":
        source = sources.write_calvin(tmp_path / "task_D_D") / "training"
    else:
        source = sources.write_lerobot(tmp_path / "so101")
    out = tmp_path / "data"
    done = _run(f"--from={form}", f"--source={source}", f"--out={out}", "--name=robot")
    assert done.returncode == 0, done.stderr
    line = next(x for x in done.stdout.split("\n") if "launch/index.py" in x)
    python, script, *flags = line.split()
    assert python == "python"
    command = [sys.executable, str(ROOT / script), *flags]
    index = subprocess.run(command, capture_output=True, text=True)
    assert "2 episodes" in index.stdout, index.stderr


def test_mistakes_are_sentences(tmp_path):
    common = ["--from=hdf5", f"--out={tmp_path}", "--name=robot"]
    done = _run(*common, f"--source={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no HDF5 file")
    source = sources.write_libero(tmp_path / "a.hdf5")
    done = _run(*common, f"--source={source}", "--resize=8")
    assert "--resize=8 must be height,width" in done.stderr
