"""Draws what a trained policy does.

    python launch/visualize.py residuals --checkpoint=runs/mine --out=runs/mine/pictures

`residuals` shows what an anchor leaves to its refinement: pictures of recorded
episodes and `residuals.json`.
"""

import sys

from absl import app, flags

FLAGS = flags.FLAGS

flags.DEFINE_string("checkpoint", None, "Run folder.", required=True)
flags.DEFINE_string("out", None, "Folder of the pictures.", required=True)
flags.DEFINE_integer("episodes", 4, "Episodes of each split.", lower_bound=1)
flags.DEFINE_integer("every", 2, "Steps from one look to the next.", lower_bound=1)
flags.DEFINE_integer("step", None, "Saved step; the latest when not given.")
flags.DEFINE_string("data", None, "Where the data lie; as trained when not given.")


def residuals() -> None:
    """Draws what the anchor leaves, and prints how much it is."""
    from vla_jax.visualize.residuals import format_report, visualize_residuals

    report = visualize_residuals(
        FLAGS.checkpoint,
        FLAGS.out,
        episodes=FLAGS.episodes,
        every=FLAGS.every,
        step=FLAGS.step,
        data=FLAGS.data,
    )
    print(f"{format_report(report)}\nPictures: {FLAGS.out}")


COMMANDS = {"residuals": residuals}


def main(argv: list[str]) -> None:
    """Runs the command named first."""
    if len(argv) != 2 or argv[1] not in COMMANDS:
        raise app.UsageError(f"Name one of {sorted(COMMANDS)}, then flags.")
    try:
        COMMANDS[argv[1]]()
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)
