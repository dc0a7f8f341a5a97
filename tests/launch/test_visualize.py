"""The command that draws: mistakes are one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command, message",
    [
        ("maps", "Name one of ['residuals'"),
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
