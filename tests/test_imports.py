"""What must not be loaded, and what parts of the library may need."""

import subprocess
import sys

import pytest


def loaded_after(statement):
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "module",
    ["train.loop", "simulation.evaluation", "simulation.collect", "serving.agent"],
)
def test_tensorflow_and_torch_are_not_loaded_by(module):
    loaded = loaded_after(f"import vla_jax.{module}")
    assert not loaded & {"tensorflow", "torch", "tensorflow_datasets"}


@pytest.mark.parametrize("module", ["models.build", "train.step", "train.checkpoint"])
def test_models_and_training_need_neither_data_nor_simulation_packages(module):
    loaded = loaded_after(f"import vla_jax.{module}")
    optional = {"grain", "simplejpeg", "PIL", "sentencepiece", "mujoco", "metaworld"}
    assert not loaded & {*optional, "google_crc32c", "ml_collections", "matplotlib"}
