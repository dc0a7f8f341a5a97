"""Every notebook runs from top to bottom in a kernel of its own, and is kept clean."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"

# What must be shown, and what must be true in the kernel at the end.
CASES = {
    "train": (
        {"image/jpeg": 1, "image/png": 2, "video": 1},
        """
        assert steps == 6
        assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
        assert predicted.shape == (len(steps_shown), 16, 4)
        assert results["tasks"][TASK]["episodes"] == 1
        """,
    ),
    "attention": (
        {"image/png": 3, "video": 2},
        """
        assert points.shape == (len(seen.images["primary"]), 2, 2)
        assert abs(points).max() <= 1
        assert looks.future_points["primary"].shape == (2, 8, 2, 2)
        """,
    ),
    "bundle": (
        {"text/markdown": 1, "image/png": 1, "video": 1},
        """
        assert found["difference"] <= 1e-5 and difference <= 1e-5
        assert local.shape == remote.shape == (10, 4)
        assert abs(local - remote).max() < 1e-3
        counts = server.stats()
        assert counts["refused"] == 1 and counts["requests"] == 4
        assert not thread.is_alive()
        """,
    ),
    "own_data": (
        {"image/jpeg": 1, "image/png": 2},
        """
        assert index.counts["episodes"] == {"train": 11, "val": 1}
        assert report.count("error") == report.count("warning") == 0
        suspects = [f.check for f in wrong_report.findings if f.level == "warning"]
        assert suspects == ["gripper convention"]
        assert batch["action"].shape == (8, 16, 4)
        """,
    ),
}


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Name of a kernel with this interpreter, whatever else is installed for users."""
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "tests", "language": "python"}
    place = tmp_path / "jupyter" / "kernels" / "tests"
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("VLA_JAX_QUICK", "1")
    return "tests"


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def kind(data):
    """What a reader sees of one output."""
    if "<video" in data.get("text/html", ""):
        return "video"
    rich = sorted(mime for mime in data if mime != "text/plain")
    return rich[0] if rich else "text/plain"


@pytest.mark.parametrize("name", CASES)
def test_runs_from_top_to_bottom(name, kernel):
    shown, facts = CASES[name]
    notebook = read(name)
    loaded = "assert not {'tensorflow', 'torch'} & set(sys.modules)"
    code = "\n".join([*(line.strip() for line in facts.splitlines()), loaded])
    notebook.cells.append(nbformat.v4.new_code_cell(code))
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(
        notebook, kernel_name=kernel, timeout=900, resources=resources
    ).execute()
    outputs = [
        kind(output.data)
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type in ("display_data", "execute_result")
    ]
    assert {mime: outputs.count(mime) for mime in shown} == shown


def test_every_notebook_is_run():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_stripped(name):
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}


@pytest.mark.parametrize("name", CASES)
def test_every_notebook_begins_alike_and_names_no_place_of_its_author(name):
    notebook, other = read(name), read("train")
    assert notebook.cells[1] == other.cells[1]
    for cell in notebook.cells:
        assert not re.search(r"""["'\s(=]/[a-z]+/""", cell.source), cell.source


@pytest.mark.parametrize("name", CASES)
def test_files_that_a_notebook_names_exist(name):
    prose = "\n".join(c.source for c in read(name).cells if c.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", prose)
    named = re.findall(r"\b(?:docs|launch|configs)/\w+\.\w+", prose)
    missing = [link for link in links if not (FOLDER / link).exists()]
    assert not missing + [path for path in named if not (ROOT / path).exists()]


def test_the_readme_names_every_notebook():
    named = re.findall(r"notebooks/(\w+)\.ipynb", (ROOT / "README.md").read_text())
    assert sorted(set(named)) == sorted(CASES)
