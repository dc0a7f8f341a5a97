"""The command line of training: a run from a config file, and errors with a name."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from tests import fake

ROOT = Path(__file__).parents[2]
# Compiling is most of the time of these runs, and LLVM most of compiling.
QUICK = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
}

CONFIG = """
from ml_collections import ConfigDict
from tests.train.train_real import get_config as tiny


def get_config(arg=""):
    return ConfigDict(tiny({data!r}, 1, {cache!r}))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A config file on a tiny data set."""
    folder = tmp_path_factory.mktemp("launch")
    data = fake.write_dataset(folder, lengths=(6, 5))
    path = folder / "config.py"
    cache = tmp_path_factory.getbasetemp() / "cache"
    path.write_text(CONFIG.format(data=str(data), cache=str(cache)))
    return path


@pytest.fixture
def launch(monkeypatch):
    """Runs the script in this process, with the arguments it is called with."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location("train", ROOT / "launch/train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        argv = ["launch/train.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)  # where ml_collections looks
        module.main(module.parse(argv))

    yield run
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def test_two_steps_from_the_command_line(config, tmp_path):
    script = (
        "import runpy, sys; sys.argv[0] = 'launch/train.py'\n"
        "try:\n    runpy.run_path('launch/train.py', run_name='__main__')\n"
        "finally:\n    print([m for m in ('tensorflow', 'torch') if m in sys.modules])"
    )
    process = subprocess.run(
        [
            *(sys.executable, "-c", script),
            *(f"--config={config}", f"--workdir={tmp_path}"),
            *("--config.train.steps=2", "--config.train.keep=1"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **QUICK},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("[]\n")
    assert (tmp_path / "checkpoints" / "2").is_dir()
    # Two updates, one validation, and what was seen of the data.
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--config.train.stepz=3", "Unknown key 'stepz' in config.train; did you mean"),
        (
            "--config.optimizer.beta=1",
            "Unknown key 'beta' in config.optimizer; choose one of ['b1'",
        ),
        (
            "--config.trian.steps=3",
            "Unknown config key 'trian' in --config.trian.steps=3",
        ),
        ("--config.model.head.width2=3", "no field 'width2'; did you mean 'width'?"),
        ("--config.data.batch=3", "batch_size"),
        ("--config.data.batch_size=3", "data.batch_size is 3, which does not divide"),
    ],
)
def test_a_wrong_key_is_named_with_the_near_alternatives(
    launch, config, tmp_path, argument, message
):
    with pytest.raises(SystemExit) as stop:
        launch(f"--config={config}", f"--workdir={tmp_path}", argument)
    assert message in str(stop.value)


def test_a_run_goes_on_only_from_a_step_that_exists(launch, config, tmp_path):
    with pytest.raises(SystemExit, match="no step 7; saved steps are"):
        launch(f"--config={config}", f"--workdir={tmp_path}", "--resume_step=7")
