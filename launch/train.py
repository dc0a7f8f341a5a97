"""Trains a policy, or goes on where an interrupted run stopped.

    python launch/train.py --config=configs/quickstart.py --workdir=runs/quickstart

Any leaf of the config can be changed on the command line, for example
`--config.train.steps=2000` or `--config.train.mesh.fsdp=-1`. On several hosts run the
same command on each; see docs/scaling.md.
"""

import re
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from vla_jax.train.distributed import MODES, processes
from vla_jax.train.loop import train

# New keys are let through here, because the config need not repeat defaults; what the
# library does not know it refuses by name.
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file; many take an argument, as in configs/quickstart.py:debug.",
    lock_config=False,
    accept_new_attributes=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, made when absent.")
_RESUME_STEP = flags.DEFINE_integer(
    "resume_step",
    None,
    "Go on from this checkpoint and delete later ones; the latest by default.",
)

_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    MODES,
    "Whether this is one of several processes; auto asks Cloud TPU and SLURM.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "host:port of process 0, where no cluster says it."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", 0, "All processes, where no cluster says it."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", -1, "Number of this process, where no cluster says it."
)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout_s",
    60,
    "Seconds of silence after which a process counts as dead and ends the others.",
)


def main(argv: Sequence[str]) -> None:
    """Runs the training that the flags describe; exits with 1 after an error."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments {argv[1:]}; flags begin with --.")
    logging.set_verbosity(logging.WARNING)  # Orbax tells every detail of every save.
    try:
        with processes(
            _DISTRIBUTED.value,
            coordinator=_COORDINATOR.value,
            num_processes=_NUM_PROCESSES.value,
            process_id=_PROCESS_ID.value,
            heartbeat_timeout_s=_HEARTBEAT.value,
        ):
            _train()
    except ValueError as error:
        sys.exit(f"error: {error}")


def _train() -> None:
    try:
        train(_CONFIG.value, _WORKDIR.value, resume_step=_RESUME_STEP.value)
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue from the last checkpoint")
    except (ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")


def parse(argv: Sequence[str]) -> list[str]:
    """Parses flags; a section that the config lacks is an error of one sentence."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        key, _, hint = str(error.args[0]).partition("\n")
        key = key.strip("'\"")
        named = [arg for arg in argv if re.match(rf"--config\.([^=]*\.)?{key}\b", arg)]
        if not named:
            raise  # An error inside of the config file.
        hint = hint or "A section must be in the config file before a flag can fill it."
        sys.exit(f"error: Unknown config key {key!r} in {named[0]}. {hint}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse)
