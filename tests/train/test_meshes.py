"""Data, FSDP and tensor parallel on eight simulated devices against one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train.train_meshes import MESHES

SCRIPT = Path(__file__).with_name("train_meshes.py")
FLAGS = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)
ATTENTION = "trunk/transformer/layer_0/attention"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("meshes") / "runs.json"
    root = str(SCRIPT.parents[2])
    process = subprocess.run(
        [sys.executable, str(SCRIPT), str(out)],
        cwd=root,
        env={
            **os.environ,
            "PYTHONPATH": root,
            "XLA_FLAGS": FLAGS,
            "JAX_PLATFORMS": "cpu",
        },
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(out.read_text())


@pytest.mark.parametrize("number", range(len(MESHES)), ids=map(str, MESHES))
def test_eight_devices_reproduce_the_losses_of_one_over_ten_steps(runs, number):
    alone, other = runs[0], runs[1 + number]
    assert len(alone["losses"]) == 10
    np.testing.assert_allclose(other["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(other["norm"], alone["norm"], rtol=1e-4)


@pytest.mark.parametrize("number", range(len(MESHES)), ids=map(str, MESHES))
def test_moments_and_average_lie_like_their_parameter(runs, number):
    assert runs[1 + number]["moments"]


def test_the_devices_share_the_state(runs):
    alone, data, fsdp, tensor, mixed = (run["bytes"] for run in runs)
    assert data == alone
    for part, size in alone.items():
        assert fsdp[part] < 0.35 * size
        assert tensor[part] < 0.75 * size
        assert mixed[part] < 0.5 * size


def test_a_layer_is_split_by_heads_and_hidden_units(runs):
    specs = runs[1 + MESHES.index(dict(data=2, tensor=4))]["specs"]
    assert specs[f"{ATTENTION}/q/kernel"] == "P(None, 'tensor')"
    assert specs[f"{ATTENTION}/q/bias"] == "P('tensor',)"
    assert specs[f"{ATTENTION}/out/kernel"] == "P('tensor',)"
    assert specs[f"{ATTENTION}/out/bias"] == "P()"
    layer = "trunk/transformer/layer_0"
    assert specs[f"{layer}/mlp_in/kernel"] == "P(None, 'tensor')"
    assert specs[f"{layer}/mlp_out/kernel"] == "P('tensor',)"
    mixed = runs[-1]["specs"]
    assert mixed[f"{ATTENTION}/q/kernel"] == "P('fsdp', 'tensor')"
    assert mixed[f"{layer}/mlp_out/kernel"] == "P('tensor', 'fsdp')"
