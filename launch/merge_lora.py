"""Merges the LoRA adapters of a run into its weights.

    python launch/merge_lora.py --checkpoint=runs/lora --out=runs/lora_merged

The result serves alone and without adapters, and a run may start from it
(`--config.train.initial_checkpoint=runs/lora_merged`).
"""

import sys

from absl import app, flags, logging

from vla_jax.train.merge import merge_checkpoint

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of the run.")
_OUT = flags.DEFINE_string("out", None, "Folder to write.")
_STEP = flags.DEFINE_integer("step", None, "Saved step; the latest by default.")
_EMA = flags.DEFINE_bool("ema", True, "Take the averaged parameters where there are.")


def main(argv: list[str]) -> None:
    """Runs what the flags describe; exits with 1 after an error."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments {argv[1:]}; flags begin with --.")
    logging.set_verbosity(logging.WARNING)
    try:
        step = merge_checkpoint(
            _CHECKPOINT.value, _OUT.value, step=_STEP.value, ema=_EMA.value
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"merged step {step} into {_OUT.value}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["checkpoint", "out"])
    app.run(main)
