"""Indexes an RLDS data set, so that training can read any step of it at once.

    python launch/index.py --data_dir=~/data/my_robot --spec=my_robot.py:MY_ROBOT

Training does the same when the index is missing; this is for doing it ahead of time,
for looking at a data set (`--validate`), and for shards that are damaged
(`--skip_corrupt`). Interrupted, it continues where it was.

`--validate` prints a line per check, writes `report.html` with pictures and
`report.json`, and exits with 1 when something is wrong that spoils training.
"""

import sys
from pathlib import Path
from typing import NoReturn

from absl import app, flags

from vla_jax.data.build import fingerprint
from vla_jax.data.checks.finding import Report, Sample
from vla_jax.data.checks.unindexed import survey
from vla_jax.data.index import open_index, place_index
from vla_jax.data.rlds import open_rlds
from vla_jax.data.standardize import resolve_spec
from vla_jax.data.statistics_formats import FORMATS, write_statistics
from vla_jax.data.validate import validate, write_reports

_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "The data set: its folder <name>/<version>, or one above it.",
    required=True,
)
_SPEC = flags.DEFINE_string(
    "spec",
    "metaworld",
    "What the data set is: a name, or path/to/your_file.py:YOUR_SPEC.",
)
_OUT = flags.DEFINE_string(
    "out", None, "Folder of the index; by default inside the data set."
)
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Processes; by default as many as the size of the data is worth.",
    lower_bound=1,
)
_SKIP_CORRUPT = flags.DEFINE_bool(
    "skip_corrupt", False, "Leave out and count episodes that cannot be read."
)
_VALIDATE = flags.DEFINE_bool(
    "validate", False, "Check the data set and report what would spoil training."
)
_VALIDATE_EPISODES = flags.DEFINE_integer(
    "validate_episodes",
    100,
    "Episodes that --validate reads and decodes images of; 0 for all.",
    lower_bound=0,
)
_VALIDATE_OUT = flags.DEFINE_string(
    "validate_out", None, "Folder of the report; by default beside the index."
)
_STATISTICS_OUT = flags.DEFINE_string(
    "statistics_out", None, "File or folder to write the statistics to."
)
_STATISTICS_FORMAT = flags.DEFINE_enum(
    "statistics_format", "octo", FORMATS, "Library whose file --statistics_out is."
)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}.")
    if _VALIDATE_OUT.value and not _VALIDATE.value:
        raise app.UsageError("--validate_out needs --validate.")
    try:
        folder, spec = open_rlds(_DATA_DIR.value), resolve_spec(_SPEC.value)
    except ValueError as error:
        sys.exit(f"{error}")
    try:
        index = open_index(
            folder.path,
            spec,
            out=_OUT.value,
            num_workers=_WORKERS.value,
            skip_corrupt=_SKIP_CORRUPT.value,
        )
    except (ValueError, RuntimeError) as error:
        if not _VALIDATE.value:
            sys.exit(f"{error}")
        place = place_index(folder, spec, _OUT.value, fingerprint(folder, spec))
        report = survey(folder, spec, error, num_episodes=_VALIDATE_EPISODES.value)
        _finish(place, report, None)
    skipped = index.counts["skipped"]
    note = f", {skipped} corrupt episodes left out" if skipped else ""
    print(
        f"{index.path}: {index.num_episodes:,} episodes, {index.num_steps:,} steps, "
        f"{len(index.cameras)} cameras{note}"
    )
    if _STATISTICS_OUT.value:
        try:
            file = write_statistics(
                _STATISTICS_OUT.value,
                index.statistics,
                _STATISTICS_FORMAT.value,
                num_trajectories=len(index.split_episodes("train")),
            )
        except ValueError as error:
            sys.exit(f"{error}")
        print(f"Wrote {file}")
    if _VALIDATE.value:
        size = _VALIDATE_EPISODES.value
        _finish(index.path, *validate(index, num_episodes=size, progress=True))


def _finish(place: Path, report: Report, sample: Sample | None) -> NoReturn:
    """Prints and writes a report, then ends with 1 for errors, else 0."""
    print(report)
    folder = Path(_VALIDATE_OUT.value or f"{place}-report").expanduser()
    try:
        print(f"Report: {write_reports(folder, report, sample)}")
    except OSError as error:
        sys.exit(f"No report can be written: {error}. Name a folder: --validate_out.")
    sys.exit(1 if report.count("error") else 0)


if __name__ == "__main__":
    app.run(main)
