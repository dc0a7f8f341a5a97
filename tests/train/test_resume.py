"""The real policy, trained in processes of its own: killed, resumed, compared; and
what a resumed run may change."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import chex
import pytest

from tests import fake
from vla_jax.train.checkpoint import Checkpointer, restore_variables, saved_steps
from vla_jax.train.config import resolve
from vla_jax.train.resume import changed_keys, require_same

SCRIPT = Path(__file__).with_name("train_real.py")
# Compiling is most of the time of these runs, and LLVM most of compiling.
QUICK = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
}


def run(cache, data, workdir, steps, *kill_at):
    command = [sys.executable, SCRIPT, cache, data, workdir, steps, *kill_at]
    return subprocess.run(
        [str(word) for word in command],
        cwd=SCRIPT.parents[2],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), **QUICK},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Cache and data, and the folder and output of a run that nothing interrupted."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    folder = tmp_path_factory.mktemp("runs")
    data = fake.write_dataset(folder, lengths=(6, 5, 7, 4))
    process = run(cache, data, folder / "straight", 6)
    assert process.returncode == 0, process.stderr
    return cache, data, folder / "straight", process.stdout


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    clock = ("examples_per_s", "images_per_s", "data_wait")
    return [
        {key: value for key, value in json.loads(line).items() if key not in clock}
        for line in lines
    ]


def test_training_leaves_tensorflow_and_torch_unimported(straight):
    assert straight[3].endswith("finished; loaded: []\n")


def test_a_run_killed_in_the_middle_and_resumed_equals_the_uninterrupted_one(straight):
    cache, data, expected, _ = straight
    workdir = expected.with_name("killed")
    process = run(cache, data, workdir, 6, 5)
    assert process.returncode == -signal.SIGKILL
    with Checkpointer(workdir / "checkpoints") as checkpoints:
        assert checkpoints.latest() in (2, 4)  # step 4 may still have been in writing
    process = run(cache, data, workdir, 6)
    assert process.returncode == 0, process.stderr
    assert saved_steps(workdir / "checkpoints") == [2, 4, 6]
    for ema in (False, True):
        found = restore_variables(workdir, ema=ema)
        wanted = restore_variables(expected, ema=ema)
        chex.assert_trees_all_equal(found, wanted)
    assert rows(workdir) == rows(expected)
    # An evaluation at steps 4 and 6; what has been seen with every checkpoint.
    assert [row["step"] for row in rows(workdir)] == [1, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6]
    key = "data/metaworld/seen"
    seen = [row[key] for row in rows(workdir) if key in row]
    assert seen == [8 / 22, 16 / 22, 1.0]  # of 6 + 5 + 7 + 4 steps


def test_only_listed_keys_may_change():
    config = dict(
        seed=0,
        data=dict(batch_size=4, num_threads=1, datasets=(dict(path="a", spec="s"),)),
        model=dict(name="policy"),
        optimizer=dict(learning_rate=0.1),
        train=dict(steps=10),
        evaluation=dict(horizon=5),
    )
    before, now = resolve(config), resolve(config)
    now["train"] |= dict(steps=20, log_every=1, keep=9, mesh=dict(fsdp=2), wandb=True)
    now["data"]["num_threads"] = 8
    now["data"]["datasets"][0]["path"] = "b"
    now["evaluation"] = dict(horizon=50)
    assert changed_keys(before, now) == []
    now["optimizer"]["b1"] = 0.8
    now["data"]["batch_size"] = 8
    assert changed_keys(before, now) == [
        ("data.batch_size", 4, 8),
        ("optimizer.b1", "(absent)", 0.8),
    ]
    message = (
        r"runs/x was.*\n  data.batch_size: 4 -> 8\n(.|\n)*number of its next batch"
    )
    with pytest.raises(ValueError, match=message):
        require_same(before, now, "config", "runs/x")


def test_only_the_last_phase_may_change_its_length():
    phases = [dict(name="a", steps=2), dict(name="b", steps=3)]
    before = {"train": dict(phases=phases)}
    longer = [phases[0], dict(name="b", steps=30)]
    assert changed_keys(before, {"train": dict(phases=longer)}) == []
    moved = [dict(name="a", steps=20), phases[1]]
    assert changed_keys(before, {"train": dict(phases=moved)}) == [
        ("train.phases.0.steps", 2, 20)
    ]
