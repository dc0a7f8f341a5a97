"""The shell scripts of clusters: syntax, printed commands, and a faked cloud."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POD = ROOT / "launch/tpu_pod.sh"
SLURM = ROOT / "launch/slurm.sh"

# Writes down how it was called. `describe` answers with the next line of a file, and
# stays at the last; what asks for exit codes gets those of another file.
GCLOUD = """#!/usr/bin/env bash
shift 3
echo "$@" >> "$FAKE/calls"
next() {
  head -n 1 "$FAKE/$1"
  [[ $(wc -l < "$FAKE/$1") -gt 1 ]] && sed -i 1d "$FAKE/$1"
  return 0
}
case "$*" in
  describe*) next states ;;
  ssh*train.exit\\ 2*) next exits | tr ',' '\\n' ;;
esac
"""


def run(script, *arguments, path="", **environment):
    return subprocess.run(
        [script, *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def cloud(tmp_path):
    """Runs the pod script against the fake; gives its process and the calls."""
    program = tmp_path / "gcloud"
    program.write_text(GCLOUD)
    program.chmod(program.stat().st_mode | stat.S_IEXEC)

    def call(*arguments, states=("READY",), exits=("0,0",), **environment):
        (tmp_path / "calls").write_text("")
        (tmp_path / "states").write_text("\n".join(states) + "\n")
        (tmp_path / "exits").write_text("\n".join(exits) + "\n")
        process = run(
            POD,
            *arguments,
            path=str(tmp_path),
            FAKE=str(tmp_path),
            TPU_NAME="pod",
            TPU_ZONE="zone-a",
            TPU_POLL_S="0",
            **environment,
        )
        calls = (tmp_path / "calls").read_text().splitlines()
        # A command for the workers may have several lines.
        words = ("create", "delete", "describe", "ssh", "scp")
        return process, [line for line in calls if line.startswith(words)]

    return call


def kinds(calls):
    return [call.split()[0] for call in calls if not call.startswith("describe")]


@pytest.mark.parametrize("script", [POD, SLURM], ids=lambda path: path.name)
def test_the_syntax_is_that_of_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_a_dry_run_prints_every_command_and_runs_none(tmp_path):
    process = run(
        POD,
        "run",
        "--",
        "--config=c.py:a b",
        path=str(tmp_path),
        DRY_RUN="1",
        TPU_NAME="pod",
        TPU_ZONE="zone-a",
        TPU_PROJECT="lab",
        TPU_TYPE="v4-32",
    )
    assert process.returncode == 0, process.stderr
    commands = process.stdout.splitlines()
    assert commands[0] == (
        "+ gcloud compute tpus tpu-vm create pod --accelerator-type=v4-32 "
        "--version=v2-alpha-tpuv5-lite --spot --zone=zone-a --project=lab"
    )
    assert [line.split()[5] for line in commands if "tpu-vm" in line] == [
        "create",
        "scp",
        "ssh",
        "ssh",
    ]
    assert "launch/train.py" in commands[-1] and "--worker=all" in commands[-1]


def test_a_slice_is_created_when_absent_and_attached_to_when_there(cloud):
    _, calls = cloud("up", states=("ABSENT",))
    assert kinds(calls) == ["create", "scp", "ssh"]
    _, calls = cloud("up", states=("READY",))
    assert kinds(calls) == ["scp", "ssh"]
    _, calls = cloud("up", states=("CREATING", "CREATING", "READY"))
    assert kinds(calls) == ["scp", "ssh"]
    _, calls = cloud("up", states=("PREEMPTED",), TPU_SPOT="0")
    assert kinds(calls) == ["delete", "create", "scp", "ssh"]
    assert "--spot" not in calls[2]


def test_training_goes_on_after_a_preemption_until_it_ends(cloud):
    states = ("ABSENT", "READY", "PREEMPTED", "ABSENT", "READY")
    process, calls = cloud(
        "run", "--", "--config=c.py", states=states, exits=("-,-", "0,-", "0,0")
    )
    assert process.returncode == 0, process.stderr
    text = "\n".join(kinds(calls))
    first = "create\nscp\nssh\nssh\n"
    assert text.startswith(f"{first}ssh\ndelete\n{first}")
    assert "the slice is PREEMPTED" in process.stderr
    assert process.stderr.endswith("training has ended\n")


def test_a_worker_that_fails_stops_the_others_and_all_start_again(cloud):
    process, calls = cloud(
        "run", "--", "--config=c.py", exits=("-,-", "1,-", "-,-", "0,0")
    )
    assert process.returncode == 0, process.stderr
    assert sum("kill -TERM" in call for call in calls) == 1
    assert sum("launch/train.py" in call for call in calls) == 2
    assert "create" not in kinds(calls)


def test_a_run_that_always_fails_ends(cloud):
    process, calls = cloud("run", "--", "--x", exits=("1,1",), TPU_RETRIES="1")
    assert process.returncode == 2
    assert "training did not end in 2 attempts" in process.stderr
    assert sum("launch/train.py" in call for call in calls) == 2


def test_what_a_worker_runs_keeps_quotes_and_leaves_the_exit_code(cloud, tmp_path):
    """The command that ssh would run, run here with a fake interpreter."""
    flag = """--config.train.sharding=[["a b", ['tensor']]]"""
    cloud("train", "--", "--config=c.py", flag)
    command = (tmp_path / "calls").read_text().split("--command=", 1)[1]
    command = command.rsplit(" --zone=", 1)[0]
    home = tmp_path / "home"
    (home / "venv/bin").mkdir(parents=True)
    (home / "vla_jax").mkdir()
    python = home / "venv/bin/python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\nexit 3\n')
    python.chmod(0o755)
    subprocess.run(["bash", "-c", command], cwd=home, check=True)
    for _ in range(200):
        if (home / "train.exit").exists() and (home / "train.exit").read_text():
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert (home / "train.exit").read_text() == "3\n"
    assert int((home / "train.pid").read_text()) > 1
    assert (home / "train.log").read_text().splitlines() == [
        "launch/train.py",
        "--distributed=on",
        "--config=c.py",
        flag,
    ]


@pytest.mark.parametrize(
    "arguments, environment, message",
    [
        (("fly",), {}, "unknown command 'fly'; choose up, train"),
        (("train",), {}, "train needs flags"),
        (("up",), {"TPU_NAME": ""}, "set TPU_NAME to the name of the slice"),
    ],
)
def test_a_wrong_call_says_what_is_right(arguments, environment, message):
    settings = {"TPU_NAME": "pod", "TPU_ZONE": "zone-a", "DRY_RUN": "1"}
    process = run(POD, *arguments, **{**settings, **environment})
    assert process.returncode != 0
    assert message in process.stderr


def test_help_needs_no_settings():
    process = run(POD, "--help")
    assert process.returncode == 0
    assert "launch/tpu_pod.sh up " in process.stdout and "set -e" not in process.stdout


def test_slurm_runs_one_process_per_node_and_dies_with_it(tmp_path):
    process = run(SLURM, "--config=c.py", DRY_RUN="1", PYTHON="python")
    assert process.stdout == (
        "+ srun --kill-on-bad-exit=1 --ntasks-per-node=1 python launch/train.py "
        "--distributed=auto --config=c.py\n"
    )
    assert run(SLURM).returncode == 2


def test_slurm_passes_the_signal_on_and_queues_again(tmp_path):
    programs = {
        # Ends with success on SIGTERM, as training does.
        "srun": "trap 'echo saved; exit 0' TERM\nkill -TERM $PPID\n"
        "for i in $(seq 200); do sleep 0.05; done\nexit 9\n",
        "scontrol": 'echo "$@"\n',
    }
    for name, content in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{content}")
        (tmp_path / name).chmod(0o755)
    process = run(SLURM, "--config=c.py", path=str(tmp_path), SLURM_JOB_ID="7")
    assert process.returncode == 0, process.stderr
    assert process.stdout == "saved\nrequeue 7\n"
