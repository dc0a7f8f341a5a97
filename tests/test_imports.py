"""What must not be loaded, and what parts of the library may need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vla_jax
from tests import fake


def loaded_after(statement):
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "module",
    [
        "train.loop",
        "simulation.evaluation",
        "simulation.collect",
        "serving.agent",
        "serving.export",
        "serving.server",
        "client.agent",
    ],
)
def test_tensorflow_and_torch_are_not_loaded_by(module):
    loaded = loaded_after(f"import vla_jax.{module}")
    assert not loaded & {"tensorflow", "torch", "tensorflow_datasets"}


@pytest.mark.parametrize("module", ["models.build", "train.step", "train.checkpoint"])
def test_models_and_training_need_neither_data_nor_simulation_packages(module):
    loaded = loaded_after(f"import vla_jax.{module}")
    optional = {"grain", "simplejpeg", "PIL", "sentencepiece", "mujoco", "metaworld"}
    assert not loaded & {*optional, "google_crc32c", "ml_collections", "matplotlib"}


def test_batches_of_an_index_load_no_tensorflow(tmp_path):
    config = fake.data_config(fake.write_dataset(tmp_path))
    loaded = loaded_after(
        "from vla_jax.data.source import open_source\n"
        "from vla_jax.data.loader import train_batches\n"
        f"next(train_batches(open_source({config!r}), seed=0))"
    )
    assert "grain" in loaded and not loaded & {"tensorflow", "tensorflow_datasets"}


def test_only_the_stream_and_its_rivals_name_tensorflow():
    root, found = Path(vla_jax.__file__).parent, set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", ())]
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            elif not isinstance(node, ast.Import):
                continue
            if any(name.startswith(("tensorflow", "dlimp")) for name in names):
                found.add(path.relative_to(root).as_posix())
    assert found == {"benchmark/tfdata.py", "data/stream.py"}
