"""Converts demonstrations to RLDS, ready to train on.

    python launch/convert.py --from=hdf5 --source=~/libero_goal --out=data \
        --name=libero_goal --resize=224,224 --rotate
    python launch/convert.py --from=lerobot --source=~/so101_pick --out=data \
        --name=so101_pick
    python launch/convert.py --from=calvin --source=~/task_ABC_D --out=data \
        --name=calvin

Interrupted at any moment, the same command continues. `hdf5` reads files of robomimic,
LIBERO and ALOHA, `lerobot` version 3, `calvin` the folders of that benchmark. Needs
`pip install 'vla_jax[convert]'`.
"""

import sys

from absl import app, flags

from vla_jax.data.convert.conversion import convert

FLAGS = flags.FLAGS

flags.DEFINE_enum(
    "from", None, ["hdf5", "lerobot", "calvin"], "Form of the source.", required=True
)
flags.DEFINE_string("source", None, "Its file or folder.", required=True)
flags.DEFINE_string("out", None, "Folder for <name>/1.0.0/.", required=True)
flags.DEFINE_string("name", None, "Of the data set, such as my_robot.", required=True)
flags.DEFINE_list("resize", None, "Height and width of the pictures, such as 224,224.")
flags.DEFINE_bool("rotate", False, "Turn the pictures by 180 degrees.")
flags.DEFINE_list("state", [], "Observations that make up the proprio, in order.")
flags.DEFINE_list("cameras", [], "Images to convert; all if left out.")
flags.DEFINE_string("instruction", None, "Of every episode, whatever the source says.")
flags.DEFINE_integer("workers", 2, "Episodes converted at a time.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Converts, then says how to go on."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    try:
        layout = _read_layout(FLAGS["from"].value)(
            FLAGS.source,
            state=FLAGS.state,
            cameras=FLAGS.cameras,
            instruction=FLAGS.instruction,
        )
        resize = _size(FLAGS.resize)
        folder, spec = convert(
            layout,
            FLAGS.out,
            FLAGS.name,
            resize=resize,
            rotate=FLAGS.rotate,
            num_threads=FLAGS.workers,
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command to continue.")
    name = layout.spec if spec is None else f"{spec}:DATASET"
    if spec is None:
        print(f"Wrote {folder}. Look at the data:")
    else:
        print(f"Wrote {folder} and {spec}. Check the latter, then look at the data:")
    print(f"  python launch/index.py --data_dir={folder} --spec={name} --validate")
    print("and train on it with this in a config:")
    print(f'  config.data.datasets = (dict(path="{folder}", spec="{name}"),)')


def _read_layout(form: str):
    """The function that reads a form of source; each needs packages of its own."""
    try:
        if form == "hdf5":
            from vla_jax.data.convert.hdf5 import read_layout
        elif form == "calvin":
            from vla_jax.data.convert.calvin import read_layout
        else:
            from vla_jax.data.convert.lerobot import read_layout
    except ImportError as error:
        raise ValueError(
            f"{error}: install what converting needs by pip install 'vla_jax[convert]'."
        ) from error
    return read_layout


def _size(values: list[str] | None) -> tuple[int, int] | None:
    if values is None:
        return None
    if len(values) != 2 or not all(v.isdigit() and int(v) > 0 for v in values):
        raise ValueError(f"--resize={','.join(values)} must be height,width in pixels.")
    return int(values[0]), int(values[1])


if __name__ == "__main__":
    app.run(main)
