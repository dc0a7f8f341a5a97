"""The collection command, killed in the middle and started again."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_COMMAND = [
    sys.executable,
    "launch/collect.py",
    "--tasks=coffee-button",
    "--episodes=3",
    "--image_size=16",
    "--workers=1",
]


@pytest.fixture(autouse=True)
def metaworld_is_installed():
    if importlib.util.find_spec("metaworld") is None:
        pytest.skip("metaworld is not installed")


def _run(out):
    return subprocess.run(
        [*_COMMAND, f"--out={out}"], cwd=_ROOT, capture_output=True, text=True
    )


def test_a_killed_collection_continues_and_ends_with_the_same_bytes(tmp_path):
    whole = _run(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "coffee-button" in whole.stdout and "Wrote" in whole.stdout
    killed = subprocess.Popen(
        [*_COMMAND, f"--out={tmp_path / 'part'}"],
        cwd=_ROOT,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "part").glob(".staging/*/*/*.success")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "part" / "metaworld").exists()
    part = _run(tmp_path / "part")
    assert part.returncode == 0, part.stderr
    for path in (tmp_path / "whole" / "metaworld" / "1.0.0").iterdir():
        there = tmp_path / "part" / "metaworld" / "1.0.0" / path.name
        assert there.read_bytes() == path.read_bytes()


def test_an_unknown_task_is_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "launch/collect.py", "--tasks=opn", f"--out={tmp_path}"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: Unknown metaworld task 'opn'")
    assert "Traceback" not in done.stderr


def test_a_dry_run_prints_rates_and_writes_nothing(tmp_path):
    done = subprocess.run(
        [*_COMMAND, f"--out={tmp_path}", "--dry_run"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "task           kept  attempts  success  95 % interval",
        "coffee-button     3         3  100.0%  43.8% to 100.0%",
    ]
    assert not list(tmp_path.iterdir())


def test_a_size_that_cannot_be_read_is_one_sentence(tmp_path):
    done = subprocess.run(
        [*_COMMAND, f"--out={tmp_path}", "--image_size=16by16"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: image_size is '16by16'; expected pixels")
