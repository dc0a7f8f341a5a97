import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("button-press-topdown", "drawer-open", "door-unlock")


def run(out):
    command = [
        *(sys.executable, "launch/quickstart.py", "--debug", f"--out={out}"),
        "--workers=1",
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="needs the extra 'sim'"
)
def test_quickstart_ends_with_a_table_and_a_report_and_can_be_repeated(tmp_path):
    first = run(tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    results = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert set(results["tasks"]) == set(TASKS)
    for task in TASKS:
        assert f"\n{task} " in first.stdout
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 3
    assert "data:image/png;base64," in page
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    written = os.stat(tmp_path / "evaluation" / "episodes.jsonl").st_mtime_ns

    second = run(tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics
    log = (tmp_path / "evaluation" / "episodes.jsonl").stat()
    assert log.st_mtime_ns == written


def test_report_refuses_nothing_but_says_when_nothing_was_filmed(tmp_path):
    from vla_jax.simulation.report import write_report

    row = dict(episodes=4, successes=3, success_rate=0.75, interval=[0.3, 0.95])
    episode = dict(task="<reach>", number=0, success=True, steps=9, instruction="go")
    content = dict(
        mean_success=0.75,
        interval=[0.3, 0.95],
        tasks={"<reach>": row},
        episodes=[episode],
        versions={"python": "3.x"},
    )
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "validation/loss": 3}]
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = write_report(
        tmp_path / "r.html",
        title="a & b",
        metrics=metrics,
        evaluation=tmp_path,
        next_steps={"Again": "make <it>"},
    )
    page = path.read_text()
    assert "a &amp; b" in page
    assert "&lt;reach&gt;<td" in page
    assert "make &lt;it&gt;" in page
    assert "75.0%" in page
    assert "3/4" in page
    assert "No episode was filmed." in page
