"""Writes a policy bundle: a folder that serves alone.

    python launch/export.py --checkpoint=runs/mine --out=policy

It holds weights, statistics, tokenizer, a compiled program for CPU, CUDA and TPU, an
example and a model card; see docs/serving.md.
"""

import sys

from absl import app, flags, logging

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Run folder.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write.", required=True)
_STEP = flags.DEFINE_integer("step", None, "Saved step; the latest when not given.")
_EMA = flags.DEFINE_bool("ema", True, "Averaged parameters where the run kept them.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "Whose robot is driven; needed after training on a mixture."
)
_EXECUTE = flags.DEFINE_integer(
    "execute", None, "Actions to play of each chunk; as in evaluation when not given."
)
_ENSEMBLE = flags.DEFINE_float("ensemble", None, "Or the rate of temporal ensembling.")
_INSTRUCTION = flags.DEFINE_string(
    "instruction", "open the drawer", "Instruction of the example."
)
_EVALUATION = flags.DEFINE_string(
    "evaluation", None, "evaluation.json for the model card; found when beside the run."
)
_PLATFORMS = flags.DEFINE_list(
    "platforms", ["cpu", "cuda", "tpu"], "What the program is lowered for."
)
_SAMPLING = flags.DEFINE_string(
    "sampling", "", "Changes of a generative head's sampler, such as num_steps=4."
)


def main(argv: list[str]) -> None:
    """Exports and prints what was checked."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    from vla_jax.serving.export import export_policy
    from vla_jax.serving.sampling import parse_sampling

    logging.set_verbosity(logging.WARNING)  # Orbax tells every detail.
    try:
        found = export_policy(
            _CHECKPOINT.value,
            _OUT.value,
            step=_STEP.value,
            ema=_EMA.value,
            dataset=_DATASET.value,
            execute=_EXECUTE.value,
            ensemble=_ENSEMBLE.value,
            instruction=_INSTRUCTION.value,
            evaluation=_EVALUATION.value,
            platforms=_PLATFORMS.value,
            sampling=parse_sampling(_SAMPLING.value),
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"Wrote {_OUT.value}: step {found['step']}")
    if found["difference"] is None:
        print("The program was lowered only; this machine cannot run it.")
    else:
        print(f"Exported and live actions differ by {found['difference']:.1e} at most")
    if found["evaluation"] is None:
        print("The model card has no evaluation; launch/evaluate.py makes one.")


if __name__ == "__main__":
    app.run(main)
