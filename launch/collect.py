"""Collects demonstrations of scripted experts and writes them as an RLDS data set.

    python launch/collect.py --env=metaworld --tasks=drawer-open,reach --out=data
    python launch/collect.py --env=aloha --tasks=transfer_cube,insertion --out=data
    python launch/collect.py --env=libero --tasks=libero_object --out=data

`--dry_run` only plays the experts, without pictures, and prints how often they succeed.
Interrupted at any moment, the same command continues. The data set is the same for
the same flags, whatever the number of workers.
"""

import sys

from absl import app, flags

from vla_jax.simulation.collect import collect, rehearse
from vla_jax.simulation.demonstration import Recipe
from vla_jax.simulation.intervals import wilson_interval

FLAGS = flags.FLAGS

flags.DEFINE_string("env", "metaworld", "Simulator: metaworld, aloha or libero.")
flags.DEFINE_list("tasks", None, "Names of tasks or suites, or 'all'.", required=True)
flags.DEFINE_string("out", None, "Folder for <data set>/1.0.0/.")
flags.DEFINE_bool(
    "dry_run", False, "Play --episodes attempts of each task and write nothing."
)
flags.DEFINE_bool(
    "fixed_starts",
    False,
    "With --dry_run: attempt n begins in the fixed initial state n (libero has 50), as "
    "published evaluations do.",
)
flags.DEFINE_integer("episodes", 25, "Successful episodes kept of each task.")
flags.DEFINE_integer("seed", 0, "Seed of the collection.")
flags.DEFINE_integer("workers", 2, "Processes.")
flags.DEFINE_string(
    "image_size",
    None,
    "Size of the pictures, 128 or 480x640 (height x width); the environment's default "
    "when not given: 128 for metaworld, 480x640 for aloha, 256 for libero.",
)
flags.DEFINE_list(
    "cameras",
    None,
    "Cameras to record; the environment's default when not given. aloha has primary "
    "(top), secondary (angle), wrist and wrist_left.",
)
flags.DEFINE_list("depth", None, "Cameras whose depth is recorded as well (aloha).")
flags.DEFINE_string("primary", None, "The simulator's camera behind 'primary'.")
flags.DEFINE_integer("horizon", None, "Steps after which an attempt has failed.")
flags.DEFINE_float("val_fraction", 0.1, "Share of episodes in the split 'val'.")
flags.DEFINE_float(
    "action_noise",
    0.0,
    "Standard deviation of noise on the executed motion; the expert's own action is "
    "recorded (DART).",
)
flags.DEFINE_integer("hold_steps", 5, "Steps recorded after success.")
flags.DEFINE_bool("cheap", True, "Render without shadows and reflections.")


def main(argv: list[str]) -> None:
    """Collects or rehearses, then prints what came of it."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    try:
        recipe = Recipe(
            environment=FLAGS.env,
            seed=FLAGS.seed,
            image_size=_size(FLAGS.env, FLAGS.image_size),
            primary=FLAGS.primary,
            horizon=FLAGS.horizon,
            action_noise=FLAGS.action_noise,
            hold_steps=FLAGS.hold_steps,
            cheap=FLAGS.cheap,
            cameras=tuple(FLAGS.cameras) if FLAGS.cameras else None,
            depth=tuple(FLAGS.depth) if FLAGS.depth else None,
        )
        if FLAGS.dry_run:
            _rehearse(recipe)
        else:
            _collect(recipe)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command to continue.")


def _collect(recipe: Recipe) -> None:
    if FLAGS.fixed_starts:
        raise ValueError(
            "--fixed_starts without --dry_run: demonstrations from the states that "
            "policies are evaluated on would make the evaluation worthless."
        )
    if FLAGS.out is None:
        raise ValueError("--out is missing: the folder that gets the data set.")
    folder, report = collect(
        FLAGS.out,
        _tasks(FLAGS.env, FLAGS.tasks),
        episodes=FLAGS.episodes,
        val_fraction=FLAGS.val_fraction,
        workers=FLAGS.workers,
        recipe=recipe,
    )
    width = max(len(task) for task in report["tasks"])
    print(f"{'task':{width}}  kept  attempts  success  mean steps")
    for task, row in report["tasks"].items():
        print(
            f"{task:{width}}  {row['kept']:4d}  {row['attempts']:8d}  "
            f"{row['kept'] / row['attempts']:6.0%}  {row['mean_steps']:10.1f}"
        )
    print(f"Wrote {folder}")


def _rehearse(recipe: Recipe) -> None:
    outcomes = rehearse(
        _tasks(FLAGS.env, FLAGS.tasks),
        attempts=FLAGS.episodes,
        workers=FLAGS.workers,
        recipe=recipe,
        fixed=FLAGS.fixed_starts,
    )
    width = max(len(task) for task in outcomes)
    print(f"{'task':{width}}  kept  attempts  success  95 % interval")
    for task, attempts in outcomes.items():
        if not attempts:
            print(f"{task:{width}}  refused: the expert has no skill for it")
            continue
        wins = sum(success for _, success in attempts)
        low, high = wilson_interval(wins, len(attempts))
        print(
            f"{task:{width}}  {wins:4d}  {len(attempts):8d}  "
            f"{wins / len(attempts):6.1%}  {low:.1%} to {high:.1%}"
        )


def _tasks(environment: str, tasks: list[str]) -> list[str]:
    if tasks != ["all"]:
        return tasks
    from vla_jax.simulation.environment import list_tasks

    return list(list_tasks(environment))


def _size(environment: str, size: str | None) -> int | tuple[int, int]:
    """`128`, `480x640`, or the environment's default."""
    from vla_jax.simulation.environment import default_views

    if size is None:
        return default_views(environment)[1]
    numbers = size.split("x")
    if len(numbers) > 2 or not all(number.isdigit() for number in numbers):
        raise ValueError(
            f"image_size is '{size}'; expected pixels such as 128, or height x width "
            "such as 480x640."
        )
    return int(size) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))


if __name__ == "__main__":
    app.run(main)
