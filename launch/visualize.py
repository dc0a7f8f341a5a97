"""Draws what a trained policy looks at and does over recorded episodes.

    python launch/visualize.py points --checkpoint=runs/msact --out=points.mp4
    python launch/visualize.py attention --checkpoint=runs/msact --out=attention.mp4
    python launch/visualize.py residuals --checkpoint=runs/mine --out=runs/mine/pictures

`points` draws the attention points of MSACT with the way that they are foreseen to go,
and beside it where they have been. `attention` draws every attention map as heat over
the picture that it belongs to. `residuals` shows what an anchor leaves to its
refinement: pictures of recorded episodes and `residuals.json`.
"""

import sys

from absl import app, flags, logging

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "checkpoint", None, "Run folder or its checkpoint folder.", required=True
)
flags.DEFINE_string(
    "out", None, "The .mp4 file to write; `residuals`: folder.", required=True
)
flags.DEFINE_string("data_dir", None, "RLDS folder; the policy's first when not given.")
flags.DEFINE_integer("step", None, "Saved step; the latest when not given.")
flags.DEFINE_string(
    "spec", "", "Videos: data set entry, or file.py:NAME; the policy's own when empty."
)
flags.DEFINE_enum(
    "split", "validation", ["validation", "train"], "Videos: where the episode is from."
)
flags.DEFINE_integer("episode", 0, "Videos: number of the episode in its split.")
flags.DEFINE_float("speed", 1.0, "Videos: 1 plays in real time.", lower_bound=0.01)
flags.DEFINE_integer(
    "episodes", 4, "`residuals`: episodes of each split.", lower_bound=1
)
flags.DEFINE_integer(
    "every", 2, "`residuals`: steps from one look to the next.", lower_bound=1
)


def points() -> None:
    """Films the attention points of an episode."""
    from vla_jax.visualize.drawing import draw_points

    _film(draw_points)


def attention() -> None:
    """Films the attention maps of an episode."""
    from vla_jax.visualize.drawing import draw_maps

    _film(draw_maps)


def residuals() -> None:
    """Draws what the anchor leaves, and prints how much it is."""
    from vla_jax.visualize.residuals import format_report, visualize_residuals

    report = visualize_residuals(
        FLAGS.checkpoint,
        FLAGS.out,
        episodes=FLAGS.episodes,
        every=FLAGS.every,
        step=FLAGS.step,
        data_dir=FLAGS.data_dir,
    )
    print(f"{format_report(report)}\nPictures: {FLAGS.out}")


def _film(draw) -> None:
    from vla_jax.simulation.video import write_video
    from vla_jax.visualize.inspection import inspect_episode

    found = inspect_episode(
        FLAGS.checkpoint,
        FLAGS.data_dir,
        spec=FLAGS.spec,
        split=FLAGS.split,
        episode=FLAGS.episode,
        step=FLAGS.step,
    )
    write_video(FLAGS.out, draw(found), found.steps_per_second * FLAGS.speed)
    print(f"wrote {FLAGS.out}: {len(next(iter(found.images.values())))} steps")


COMMANDS = {"points": points, "attention": attention, "residuals": residuals}


def main(argv: list[str]) -> None:
    """Runs the command named first."""
    if len(argv) != 2 or argv[1] not in COMMANDS:
        raise app.UsageError(f"Name one of {list(COMMANDS)}, then flags.")
    logging.set_verbosity(logging.WARNING)  # Orbax tells every detail of every load.
    try:
        COMMANDS[argv[1]]()
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)
