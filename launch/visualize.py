"""Shows what a trained policy looks at, over a recorded episode, as a video.

    python launch/visualize.py points --checkpoint=runs/msact --data_dir=DATA \
        --out=points.mp4
    python launch/visualize.py attention --checkpoint=runs/msact --data_dir=DATA \
        --out=attention.mp4

`points` draws the attention points of MSACT with the way that they are foreseen to go,
and beside it where they have been. `attention` draws every attention map as heat over
the picture that it belongs to.
"""

import sys

from absl import app, flags, logging

from vla_jax.simulation.video import write_video
from vla_jax.visualize.drawing import draw_maps, draw_points
from vla_jax.visualize.inspection import inspect_episode

_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Run folder or its checkpoint folder.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "RLDS folder with the episode.", required=True
)
_OUT = flags.DEFINE_string("out", None, "The .mp4 file to write.", required=True)
_SPEC = flags.DEFINE_string(
    "spec", "", "Data set entry, or file.py:NAME; the policy's own when empty."
)
_SPLIT = flags.DEFINE_enum(
    "split", "validation", ["validation", "train"], "Where the episode is from."
)
_EPISODE = flags.DEFINE_integer("episode", 0, "Number of the episode in its split.")
_STEP = flags.DEFINE_integer("step", None, "Saved step; the latest by default.")
_SPEED = flags.DEFINE_float("speed", 1.0, "1 plays in real time.", lower_bound=0.01)

_COMMANDS = {"points": draw_points, "attention": draw_maps}


def main(argv: list[str]) -> None:
    """Inspects the episode, draws it and writes the video."""
    if len(argv) != 2 or argv[1] not in _COMMANDS:
        raise app.UsageError(f"Name one of {list(_COMMANDS)}, got {argv[1:]}.")
    logging.set_verbosity(logging.WARNING)  # Orbax tells every detail of every load.
    try:
        found = inspect_episode(
            _CHECKPOINT.value,
            _DATA_DIR.value,
            spec=_SPEC.value,
            split=_SPLIT.value,
            episode=_EPISODE.value,
            step=_STEP.value,
        )
        fps = found.steps_per_second * _SPEED.value
        write_video(_OUT.value, _COMMANDS[argv[1]](found), fps)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"wrote {_OUT.value}: {len(next(iter(found.images.values())))} steps")


if __name__ == "__main__":
    app.run(main)
