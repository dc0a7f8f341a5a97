"""Benchmarks run from the command line and write rows and machine."""

import importlib.util
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


def test_loader_benchmark_writes_every_row_and_the_machine(tmp_path):
    out = tmp_path / "loader.json"
    done = run(
        "loader",
        "--compare=tfdata,dlimp",
        f"--out={out}",
        "--image_size=32",
        "--batch_size=4",
        "--num_batches=5",
        "--repeats=2",
        "--memory_samples=160",
        "--threads=2",
        "--episodes=3",
        "--index_episodes=2",
        "--access_episodes=20",
        "--mixture_episodes=2",
        "--shuffle=8",
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    rows = {row["name"]: row for row in content["rows"]}
    for name in (
        "loader/vs_tfdata",
        "loader/processor_vs_tfdata",
        "loader/decode_ratio",
        "loader/frames_per_s",
        "loader/rss_mb",
        "tfdata/rss_mb",
        "index/vs_read",
        "index/vs_read_cached",
    ):
        row = rows[name]
        assert 0 < row["low"] <= row["value"] <= row["high"]
        assert row["turns"] == 2
    assert 0 < rows["access/p50_ms"]["value"] <= rows["access/p99_ms"]["value"]
    assert rows["loader/frames_per_s"]["unit"] == "images/s"
    assert rows["loader/rss_mb"]["value"] < rows["tfdata/rss_mb"]["value"]
    assert rows["loader/rss_samples"]["value"] == 160
    assert rows["mixture/threads_per_dataset"]["value"] == 0
    assert rows["mixture/mb_per_dataset"]["value"] < 20
    assert rows["access/episodes"]["value"] == 20
    assert {"loader/rss_growth_mb", "mixture/datasets"} <= set(rows)
    if importlib.util.find_spec("dlimp") is None:
        assert "Leaving dlimp out of the comparison" in done.stdout
        assert "loader/vs_dlimp" not in rows
    else:
        assert rows["loader/vs_dlimp"]["value"] > 0
    assert content["machine"]["cores"] >= 1
    assert "loader/decode_ratio" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("laoder",), "['loader', 'step', 'inference', 'serve']"),
        (("step",), "--config"),
        (("serve",), "--policy, made by launch/export.py"),
        (("loader", "--data_dir=/nowhere"), "error: There is no folder /nowhere"),
        (("loader", "--compare=tfdta"), "'tfdta' in --compare; did you mean 'tfdata'?"),
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
