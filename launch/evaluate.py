"""Plays a trained policy in simulation and reports its success rates.

    python launch/evaluate.py --checkpoint=runs/mine --tasks=drawer-open,reach
    python launch/evaluate.py --checkpoint=runs/act --env=aloha --tasks=transfer_cube
    python launch/evaluate.py --checkpoint=runs/arm --env=libero --tasks=libero_object

Several checkpoints, separated by commas, are compared with the first on identical
episodes; `--step=2000,latest` says at which step each. Interrupted at any moment, the
same command continues. Instead of a checkpoint, any server that speaks openpi's
protocol can be evaluated:

    python launch/evaluate.py --policy_server=ws://localhost:8000 --tasks=drawer-open

Episodes that another simulator has recorded, such as CALVIN's, are counted:

    python launch/evaluate.py --recorded=episodes.jsonl --out=runs/calvin
"""

import functools
import hashlib
import json
import os
import sys
from pathlib import Path

from absl import app, flags

from vla_jax.simulation.ablation import ABLATIONS
from vla_jax.simulation.aloha_variants import VARIANTS

FLAGS = flags.FLAGS

flags.DEFINE_list("checkpoint", None, "Run folder, or several to compare.")
flags.DEFINE_string("policy_server", None, "Instead: ws://host:port of a server.")
flags.DEFINE_string(
    "server_layout", None, "Names that a server of another make uses, such as libero."
)
flags.DEFINE_integer(
    "server_image_size", None, "Pixels that such a server wants, on both sides."
)
flags.DEFINE_string("env", "metaworld", "Simulator: metaworld, aloha or libero.")
flags.DEFINE_string("recorded", None, "Instead: a file of episodes to count.")
flags.DEFINE_list("tasks", None, "Names of tasks or suites, or 'all'.")
flags.DEFINE_integer("episodes", 20, "Episodes of each task.", lower_bound=1)
flags.DEFINE_integer("seed", 7, "Seed of the evaluation.")
flags.DEFINE_string("out", None, "Results; <checkpoint>/evaluation by default.")
flags.DEFINE_integer("workers", 2, "Environments at a time.", lower_bound=1)
flags.DEFINE_integer("videos", 1, "Episodes of each task to film.", lower_bound=0)
flags.DEFINE_list("step", ["latest"], "Saved step, or one for each checkpoint.")
flags.DEFINE_list(
    "sampling",
    [""],
    "Changes of a generative head's sampler, such as num_steps=4 or anchor.num_steps=1 "
    "(several are joined by +), or those of each checkpoint, empty for none.",
)
flags.DEFINE_integer("execute", None, "Actions played of each predicted chunk.")
flags.DEFINE_float("ensemble", None, "Rate of temporal ensembling, for example 0.01.")
flags.DEFINE_integer(
    "horizon", None, "Steps after which an episode has failed.", lower_bound=1
)
flags.DEFINE_string("primary", None, "The simulator's camera behind 'primary'.")
flags.DEFINE_bool("cheap", True, "Render without shadows and reflections.")
flags.DEFINE_string(
    "variant",
    "none",
    "Disturbance, drawn by the seed of each episode. Only aloha has some: "
    + "; ".join(f"{name}, {variant.summary}" for name, variant in VARIANTS.items()),
)
flags.DEFINE_bool(
    "whole", False, "Play on to the horizon after success, and see whether it lasts."
)
flags.DEFINE_float("confidence", 0.95, "Of the intervals; for example 0.99.")
flags.DEFINE_enum(
    "blank",
    "nothing",
    ABLATIONS,
    "Ablation: black pictures, an empty instruction, or another task's instruction.",
)

_PLAYED = ("checkpoint", "policy_server", "recorded")
# Folders of the results of compared checkpoints.
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def main(argv: list[str]) -> None:
    """Evaluates one checkpoint, or compares several."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    try:
        _evaluate()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command to continue.")


def _evaluate() -> None:
    # Heavy imports wait: worker processes import this file again.
    from vla_jax.names import did_you_mean
    from vla_jax.simulation.environment import (
        check_tasks,
        list_tasks,
        list_variants,
        require_installed,
    )
    from vla_jax.simulation.evaluation import (
        compare,
        format_comparison,
        format_table,
        write_comparison,
        z_score,
    )
    from vla_jax.simulation.gl import ensure_gl
    from vla_jax.simulation.recorded import report_recorded
    from vla_jax.train.checkpoint import find_folder

    given = [bool(FLAGS[name].value) for name in _PLAYED]
    if sum(given) != 1:
        raise ValueError(
            "Give either --checkpoint or --policy_server, or else --recorded."
        )
    if FLAGS.recorded:
        out = Path(FLAGS.out or Path(FLAGS.recorded).parent)
        print(format_table(report_recorded(FLAGS.recorded, out, FLAGS.confidence)))
        print(f"Wrote {out / 'evaluation.json'}")
        return
    if not FLAGS.tasks:
        raise ValueError("Say which tasks to play: --tasks=NAME,NAME or --tasks=all.")
    if FLAGS.checkpoint and len(FLAGS.checkpoint) > len(_PLACES):
        raise ValueError(
            f"{len(FLAGS.checkpoint)} checkpoints came; at most {len(_PLACES)} are "
            "compared."
        )
    require_installed(FLAGS.env)
    tasks = FLAGS.tasks if FLAGS.tasks != ["all"] else list_tasks(FLAGS.env)
    tasks = check_tasks(FLAGS.env, tasks)
    if FLAGS.variant not in list_variants(FLAGS.env):
        known = list_variants(FLAGS.env)
        raise ValueError(
            f"Unknown {FLAGS.env} variant '{FLAGS.variant}'; "
            f"{did_you_mean(FLAGS.variant, known)}"
        )
    z_score(FLAGS.confidence)
    if FLAGS.policy_server:
        ensure_gl()
        out = Path(FLAGS.out or "runs/policy_server")
        print(f"Evaluating {FLAGS.policy_server}")
        print(format_table(_evaluate_server(tasks, out)))
        print(f"Wrote {out / 'evaluation.json'}")
        return
    folders = [find_folder(name) for name in FLAGS.checkpoint]
    steps = _steps(folders)
    out = Path(FLAGS.out) if FLAGS.out else folders[0].parent / "evaluation"
    ensure_gl()
    sampling = _for_each("sampling", folders)
    names = [
        f"{name} at step {step}" + f" with {changes}" * bool(changes)
        for name, step, changes in zip(FLAGS.checkpoint, steps, sampling, strict=True)
    ]
    reports = []
    arms = zip(names, folders, steps, sampling, strict=True)
    for (name, *arm), part in zip(arms, _PLACES, strict=False):
        place = out if len(folders) == 1 else out / part
        print(f"Evaluating {name}")
        reports.append(_evaluate_one(*arm, tasks, place))
        print(format_table(reports[-1]))
        print(f"Wrote {place / 'evaluation.json'}")
    for name, report, part in zip(names[1:], reports[1:], _PLACES[1:], strict=False):
        rows = compare(reports[0], report)
        path = out / f"comparison{'' if part == 'second' else '_' + part}.json"
        write_comparison(path, rows, [names[0], name])
        print(format_comparison(rows, [names[0], name]))
        print(f"Wrote {path}")


def _steps(folders: list[Path]) -> list[int]:
    """The saved step of each folder that `--step` asks for."""
    from vla_jax.train.checkpoint import saved_steps

    steps = []
    for folder, word in zip(folders, _for_each("step", folders), strict=True):
        saved = saved_steps(folder)
        if not saved:
            raise ValueError(f"{folder} holds no saved step yet.")
        if word != "latest" and not word.isdecimal():
            raise ValueError(f"--step={word} is neither a number nor 'latest'.")
        steps.append(saved[-1] if word == "latest" else int(word))
    return steps


def _for_each(flag: str, folders: list[Path]) -> list[str]:
    """The values of a flag that has one for all checkpoints or one for each."""
    asked = FLAGS[flag].value
    if len(asked) not in (1, len(folders)):
        raise ValueError(
            f"--{flag}={','.join(asked)} has {len(asked)} values for {len(folders)} "
            "checkpoints; give one for all or one for each."
        )
    return asked * len(folders) if len(asked) == 1 else asked


def _evaluate_one(
    folder: Path, step: int, sampling: str, tasks: tuple[str, ...], out: Path
) -> dict:
    from vla_jax.serving.agent import Agent
    from vla_jax.serving.sampling import parse_sampling

    agent = Agent.from_checkpoint(
        folder,
        step=step,
        execute=FLAGS.execute,
        ensemble=FLAGS.ensemble,
        sampling=parse_sampling(sampling),
    )
    config = json.loads((folder / "config.json").read_text()).get("evaluation", {})
    identity = {
        "checkpoint": str(folder),
        "step": step,
        "weights": _digest(folder / str(step) / "files.json"),
        **({"sampling": sampling} if sampling else {}),
    }
    return _play(agent, tasks, out, identity, config)


def _evaluate_server(tasks: tuple[str, ...], out: Path) -> dict:
    from vla_jax.client.agent import RemoteAgent
    from vla_jax.client.connection import Connection
    from vla_jax.client.layouts import make_layout

    url, size = FLAGS.policy_server, FLAGS.server_image_size
    agent = RemoteAgent(
        lambda: Connection(url, api_key=os.environ.get("VLA_JAX_API_KEY")),
        layout=make_layout(FLAGS.server_layout, {}, None)
        if FLAGS.server_layout
        else None,
        image_size=(size, size) if size else None,
        execute=FLAGS.execute,
        ensemble=FLAGS.ensemble,
    )
    stated = agent.metadata.get("policy", {})
    identity = {
        "policy_server": url,
        "layout": FLAGS.server_layout,
        "image_size": size,
        "step": stated.get("step"),
        # A server of another make does not say what it serves.
        "weights": stated.get("weights_sha256"),
    }
    return _play(agent, tasks, out, identity, stated.get("simulation", {}))


def _play(
    agent, tasks: tuple[str, ...], out: Path, identity: dict, config: dict
) -> dict:
    """Evaluates an agent; `config` holds `primary` and `horizon` where no flag does."""
    from vla_jax.simulation.ablation import ablate
    from vla_jax.simulation.environment import (
        fixed_starts,
        list_stages,
        make_environment,
        phrasings,
    )
    from vla_jax.simulation.evaluation import evaluate

    options = {
        "primary": FLAGS.primary or config.get("primary"),
        "horizon": FLAGS.horizon or config.get("horizon"),
        "cheap": FLAGS.cheap,
    }
    # Pictures are shrunk as in training, where they were recorded at a larger size.
    size = tuple(config.get("image_size") or agent.image_size)
    if size != tuple(agent.image_size):
        identity = {**identity, "rendered": list(size)}
    settings = {
        **identity,
        "environment": FLAGS.env,
        "execute": agent.execute,
        "ensemble": agent.ensemble,
        "blank": FLAGS.blank,
        # None where nothing is changed, as in the results of earlier versions.
        "variant": None if FLAGS.variant == "none" else FLAGS.variant,
        "whole": FLAGS.whole or None,
        # Which instruction is wrong depends on the order of the tasks.
        "order": list(tasks) if FLAGS.blank == "wrong_language" else None,
        **options,
    }
    make = functools.partial(
        make_environment,
        FLAGS.env,
        image_size=size,
        cameras=agent.cameras,
        variant=FLAGS.variant,
        **options,
    )
    return evaluate(
        ablate(agent, FLAGS.blank, [phrasings(FLAGS.env, task) for task in tasks]),
        out,
        tasks,
        make,
        episodes=FLAGS.episodes,
        seed=FLAGS.seed,
        settings=settings,
        num_workers=FLAGS.workers,
        num_videos=FLAGS.videos,
        whole=FLAGS.whole,
        confidence=FLAGS.confidence,
        stages={task: list_stages(FLAGS.env, task) for task in tasks},
        fixed_starts=fixed_starts(FLAGS.env),
    )


def _digest(path: Path) -> str:
    """Tells a run that was trained anew in the same folder from the old one."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


if __name__ == "__main__":
    app.run(main)
