"""Several real processes on this machine: killed, stopped, resumed on other meshes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import chex
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests import fake
from vla_jax.train.checkpoint import restore_variables, saved_steps
from vla_jax.train.distributed import data_share, in_cluster, processes, slurm_devices
from vla_jax.train.sharding import make_mesh

SCRIPT = Path(__file__).with_name("train_hosts.py")
# Compiling is most of the time of these runs, and LLVM most of compiling.
QUICK = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
    "JAX_PLATFORMS": "cpu",
}
# Seconds in which the others must be gone: the heartbeat timeout of the script and
# time to end on a busy machine.
GONE = 10 + 35


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run(data, workdir, *, count=2, devices=2, mesh=(), rules=(), signals=()):
    """Runs `count` processes; gives their exit codes, output and seconds each."""
    workdir.mkdir(exist_ok=True)
    port, begun = free_port(), time.monotonic()
    running = []
    for number in range(count):
        arguments = dict(
            data=str(data),
            workdir=str(workdir),
            cache=str(data.parent / "cache"),
            port=port,
            count=count,
            number=number,
            devices=devices,
            mesh=dict(mesh),
            rules=list(rules),
            signal_at=dict(signals).get(number, {}),
        )
        running.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), json.dumps(arguments)],
                cwd=SCRIPT.parents[2],
                env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), **QUICK},
                stdout=(workdir / f"out-{number}").open("w"),
                stderr=subprocess.STDOUT,
            )
        )
    ends = {}
    while len(ends) < count:
        for number, process in enumerate(running):
            if process.poll() is not None and number not in ends:
                ends[number] = time.monotonic() - begun
        if time.monotonic() - begun > 120:
            for process in running:
                process.kill()
        time.sleep(0.05)
    output = [(workdir / f"out-{number}").read_text() for number in range(count)]
    codes = [process.returncode for process in running]
    return codes, output, [ends[number] for number in range(count)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The data, and a run of two processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("hosts")
    data = fake.write_dataset(folder, lengths=(6, 5, 7, 4))
    # The index is built once, here.
    codes, output, _ = run(data, folder / "straight")
    assert codes == [0, 0], output
    return data, folder / "straight"


def losses(workdir):
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_every_process_loads_its_own_rows_of_the_batch_of_one(straight):
    data, workdir = straight
    alone = workdir.with_name("alone")
    codes, output, _ = run(data, alone, count=1, devices=4)
    assert codes == [0], output

    def rows(folder, name):
        lines = (folder / name).read_text().splitlines()
        return {step: sums for step, sums in map(json.loads, lines)}

    whole = rows(alone, "rows-1-0.jsonl")
    parts = [rows(workdir, f"rows-2-{number}.jsonl") for number in range(2)]
    assert list(parts[0][0]) == ["0", "1"] and list(parts[1][0]) == ["2", "3"]
    for step, sums in whole.items():
        assert parts[0][step] | parts[1][step] == sums
    found, expected = losses(workdir), losses(alone)
    assert found.keys() == expected.keys() and len(found) == 12
    for step, loss in found.items():
        np.testing.assert_allclose(loss, expected[step], rtol=1e-5)


@pytest.fixture(scope="module")
def killed(straight):
    """The folder of a run whose second process was killed, and what the first did."""
    data, expected = straight
    workdir = expected.with_name("killed")
    codes, output, ends = run(data, workdir, signals={1: {5: signal.SIGKILL}})
    assert codes[1] == -signal.SIGKILL
    assert max(saved_steps(workdir / "checkpoints")) in (2, 4), output
    shutil.copytree(workdir, workdir.with_name("moved"))
    return workdir, codes[0], ends[0] - ends[1]


def test_a_killed_process_ends_the_others(killed):
    _, code, seconds = killed
    assert code != 0
    assert seconds < GONE


def test_a_killed_run_continues_exactly(straight, killed):
    data, expected = straight
    workdir = killed[0]
    codes, output, _ = run(data, workdir)
    assert codes == [0, 0], output
    assert losses(workdir) == losses(expected)
    chex.assert_trees_all_equal(restore_variables(workdir), restore_variables(expected))


def test_a_run_goes_on_with_other_processes_and_on_another_mesh(straight, killed):
    data, expected = straight
    workdir = killed[0].with_name("moved")
    mesh = dict(data=2, fsdp=2, tensor=2)
    rules = [["trunk/kernel", [None, "tensor"]]]
    codes, output, _ = run(data, workdir, count=1, devices=8, mesh=mesh, rules=rules)
    assert codes == [0], output
    np.testing.assert_allclose(losses(workdir)[12], losses(expected)[12], rtol=1e-5)


def test_a_signal_to_one_process_saves_the_same_step_in_all(straight):
    data, expected = straight
    workdir = expected.with_name("stopped")
    codes, output, _ = run(
        data,
        workdir,
        devices=1,
        mesh=dict(tensor=2),
        rules=[["trunk/kernel", [None, "tensor"]]],
        signals={1: {7: signal.SIGTERM}},
    )
    assert codes == [0, 0], output
    # They agree every tenth step.
    assert [line.splitlines()[-1] for line in output] == ["stopped after step 10"] * 2
    assert saved_steps(workdir / "checkpoints")[-1] == 10
    # Processes that share a tensor group load the same rows.
    files = [(workdir / f"rows-2-{number}.jsonl").read_text() for number in range(2)]
    assert files[0] == files[1]
    np.testing.assert_allclose(losses(workdir)[10], losses(expected)[10], rtol=1e-5)


class SimpleDevice(NamedTuple):
    process_index: int
    id: int


class Placement:
    """A sharding of four rows over devices of these processes, in these rows."""

    def __init__(self, *rows):
        self.rows = rows

    def devices_indices_map(self, shape):
        return {
            SimpleDevice(process, number): (slice(*rows),)
            for number, (process, *rows) in enumerate(self.rows)
        }


def test_one_process_loads_the_whole_batch():
    sharding = NamedSharding(make_mesh(), PartitionSpec("data"))
    assert data_share(sharding, 4) == (0, 1)


def test_the_rows_of_a_process_need_not_follow_each_other():
    torus = Placement((1, 0, 1), (0, 1, 2), (1, 2, 3), (0, 3, 4))
    assert data_share(torus, 4) == (1, 2)


def test_processes_with_the_same_rows_load_the_same_part():
    shared = Placement((0, 2, 4), (1, 2, 4), (2, 0, 2), (3, 0, 2))
    assert data_share(shared, 4) == (1, 2)


def test_processes_that_share_only_some_rows_are_an_error():
    mixed = Placement((0, 0, 2), (0, 2, 4), (1, 2, 4), (1, 0, 1))
    with pytest.raises(ValueError, match="share some of their rows and not others"):
        data_share(mixed, 4)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"TPU_SKIP_MDS_QUERY": "1"}, False),
        ({"JAX_PLATFORMS": "cpu"}, False),
        ({"JAX_PLATFORMS": "tpu,cpu"}, True),
        ({}, True),  # a machine with TPU chips: JAX would have set the variable
        (
            {
                "TPU_SKIP_MDS_QUERY": "1",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": "0",
                "SLURM_STEP_NODELIST": "a[1-2]",
            },
            True,
        ),
        ({"TPU_SKIP_MDS_QUERY": "1", "SLURM_NTASKS": "1"}, False),
        # In a batch script, outside of srun.
        (
            {"JAX_PLATFORMS": "cpu", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"},
            False,
        ),
    ],
)
def test_a_cluster_is_told_by_its_environment(environment, expected):
    assert in_cluster(environment) == expected


@pytest.mark.parametrize(
    "tasks, gpus, expected",
    [
        ("1(x4)", "8", list(range(8))),
        ("1", "2", [0, 1]),
        ("8(x2)", "8", None),
        ("1(x2),2", "2", None),
        ("1(x4)", "", None),
    ],
)
def test_a_task_alone_on_its_node_gets_all_of_its_gpus(tasks, gpus, expected):
    environment = {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_GPUS_ON_NODE": gpus}
    assert slurm_devices(environment) == expected


@pytest.mark.parametrize(
    "mode, options, message",
    [
        ("yes", {}, "Unknown mode 'yes'"),
        ("auto", dict(coordinator="a:1"), "go together: got 'a:1', 0 and -1"),
    ],
)
def test_flags_that_name_no_cluster_are_an_error(mode, options, message):
    call = processes(mode, **options)
    with pytest.raises(ValueError, match=re.escape(message)), call:
        pass
