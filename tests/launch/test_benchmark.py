"""Benchmarks run from the command line and write rows and machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fake

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "launch" / "benchmark.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )


def test_loader_benchmark_writes_rows_and_machine(tmp_path):
    out = tmp_path / "loader.json"
    done = run(
        "loader",
        f"--out={out}",
        "--image_size=32",
        "--batch_size=4",
        "--num_batches=5",
        "--repeats=2",
        "--memory_batches=40",
        "--threads=2",
        "--episodes=3",
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["loader/decode_ratio"]["value"] > 0
    assert rows["loader/frames_per_s"]["unit"] == "images/s"
    assert rows["loader/rss_batches"]["value"] == 40
    assert "loader/rss_growth_mb" in rows
    assert content["machine"]["cores"] >= 1
    assert "loader/decode_ratio" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("laoder",), "['loader', 'step', 'inference', 'serve']"),
        (("step",), "--config"),
        (("serve",), "--policy, made by launch/export.py"),
        (("loader", "--data_dir=/nowhere"), "error: There is no folder /nowhere"),
    ],
)
def test_mistakes_are_named(arguments, message):
    done = run(*arguments)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_images_of_another_size_are_refused(tmp_path):
    folder = fake.write_dataset(tmp_path, image_size=16)
    done = run("loader", f"--data_dir={folder}", "--num_batches=2", "--batch_size=2")
    assert done.returncode == 1
    assert "error: The images are 16 x 16 pixels" in done.stderr
