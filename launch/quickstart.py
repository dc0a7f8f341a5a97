"""From nothing to a policy that works: collect, index, train, evaluate, report.

    python launch/quickstart.py

Every step is the command that one would type; they are printed. Interrupted at any
moment and started again, it continues where it was.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

from vla_jax.simulation.gl import ensure_gl

FLAGS = flags.FLAGS

_OUT = "runs/quickstart"  # where configs/quickstart.py looks for the data

flags.DEFINE_string("out", _OUT, "Folder of everything it makes.")
flags.DEFINE_integer("workers", 2, "Simulator processes at a time.", lower_bound=1)
flags.DEFINE_bool("debug", False, "Tiny sizes: shows that it runs, learns nothing.")

TASKS = ("button-press-topdown", "drawer-open", "door-unlock")
_ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str]) -> None:
    """Runs the five steps and prints where the report is."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    try:
        ensure_gl()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    out = (Path.cwd() / FLAGS.out).resolve()
    if out.is_relative_to(_ROOT):
        out = out.relative_to(_ROOT)  # The printed commands are run from there.
    os.chdir(_ROOT)
    start = time.monotonic()
    for number, command in enumerate(commands(out), 1):
        _run(number, command)
    minutes = (time.monotonic() - start) / 60
    report = _report(out, minutes)
    results = json.loads((out / "evaluation" / "evaluation.json").read_text())
    from vla_jax.simulation.evaluation import format_table

    print(f"\n{format_table(results)}\n\nReport: {report}  ({minutes:.1f} minutes)")


def commands(out: Path) -> list[list[str]]:
    """The four commands, without the interpreter."""
    debug = FLAGS.debug
    config = "configs/quickstart.py" + (":debug" if debug else "")
    data = out / "data"
    dataset = data / "metaworld" / "1.0.0"
    datasets = f"({{'path':'{dataset}','spec':'metaworld'}},)"
    return [
        [
            "launch/collect.py",
            "--env=metaworld",
            f"--tasks={','.join(TASKS)}",
            f"--episodes={2 if debug else 40}",
            f"--out={data}",
            "--seed=0",
            f"--workers={FLAGS.workers}",
            "--image_size=96",
            "--primary=topview",
            "--action_noise=0.3",
        ],
        ["launch/index.py", f"--data_dir={dataset}", "--spec=metaworld"],
        [
            "launch/train.py",
            f"--config={config}",
            *([] if str(out) == _OUT else [f"--config.data.datasets={datasets}"]),
            f"--workdir={out / 'run'}",
        ],
        [
            "launch/evaluate.py",
            f"--checkpoint={out / 'run'}",
            "--env=metaworld",
            f"--tasks={','.join(TASKS)}",
            f"--episodes={1 if debug else 20}",
            "--seed=7",
            f"--workers={FLAGS.workers}",
            f"--out={out / 'evaluation'}",
            *(["--horizon=4"] if debug else []),
        ],
    ]


def _run(number: int, command: list[str]) -> None:
    """Runs one step; ends this process with a sentence when the step did not finish."""
    print(f"\n[{number}/4] python {shlex.join(command)}", flush=True)
    process = subprocess.Popen([sys.executable, *command])
    # A terminal sends Ctrl-C to the step as well, which then saves; SIGTERM comes to
    # this process alone. Either way it waits for the step to end.
    handlers = {
        signal.SIGINT: lambda received, frame: None,
        signal.SIGTERM: lambda received, frame: process.send_signal(received),
    }
    before = {name: signal.signal(name, call) for name, call in handlers.items()}
    code = process.wait()
    for name, call in before.items():
        signal.signal(name, call)
    interrupted = code < 0 or _is_unfinished(command)
    if code or interrupted:
        again = "Run `make quickstart` again to continue."
        print(f"\nStep {number} stopped. {again}", file=sys.stderr)
        sys.exit(code if code > 0 else 1)


def _is_unfinished(command: list[str]) -> bool:
    """Whether training was interrupted, which it reports as a success: it has saved."""
    if command[0] != "launch/train.py":
        return False
    workdir = Path(_value(command, "--workdir"))
    saved = workdir / "checkpoints"
    steps = [int(p.name) for p in saved.glob("*") if p.name.isdigit()]
    if not (saved / "config.json").exists():
        return True
    config = json.loads((saved / "config.json").read_text())
    return max(steps, default=0) < config["train"]["steps"]


def _value(command: list[str], flag: str) -> str:
    return next(part.split("=", 1)[1] for part in command if part.startswith(flag))


def _report(out: Path, minutes: float) -> Path:
    from vla_jax.simulation.report import write_report

    python = Path(sys.executable)
    if python.is_relative_to(_ROOT):
        python = python.relative_to(_ROOT)
    collection = json.loads(
        (out / "data" / "metaworld" / "1.0.0" / "collection.json").read_text()
    )
    kept = sum(row["kept"] for row in collection["tasks"].values())
    return write_report(
        out / "report.html",
        title="vla_jax quickstart",
        metrics=out / "run" / "metrics.jsonl",
        evaluation=out / "evaluation",
        facts=(
            f"One policy, {len(TASKS)} Meta-World tasks told apart by language, "
            f"{kept} scripted demonstrations. The last run of the commands took "
            f"{minutes:.1f} minutes; steps that were finished before take no time.",
        ),
        next_steps={
            "Evaluate with other episodes, or with blacked-out pictures": (
                f"{python} launch/evaluate.py --checkpoint={out / 'run'} "
                f"--tasks={','.join(TASKS)} --episodes=50 --seed=8 --out=runs/again\n"
                f"{python} launch/evaluate.py --checkpoint={out / 'run'} "
                f"--tasks={','.join(TASKS)} --blank=images --out=runs/blank"
            ),
            "Train longer, from scratch": (
                f"{python} launch/train.py --config=configs/quickstart.py "
                "--config.train.steps=6000 --workdir=runs/longer"
            ),
            "Collect other tasks": (
                f"{python} launch/collect.py --tasks=window-open,door-open "
                "--episodes=40 --image_size=96 --primary=topview --action_noise=0.3 "
                "--out=runs/mydata"
            ),
            "Check your own RLDS data, then train on it (README, five steps)": (
                f"{python} launch/index.py --data_dir=PATH --spec=my_robot.py:MY_ROBOT "
                "--validate"
            ),
            "Watch the curves": (
                f"{python} -m pip install tensorboard\n"
                f"{python} -m tensorboard.main "
                f"--logdir={out / 'run' / 'tensorboard'}"
            ),
        },
    )


if __name__ == "__main__":
    app.run(main)
