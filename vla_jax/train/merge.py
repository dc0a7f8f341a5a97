"""A checkpoint with LoRA adapters as one without: the policy that anybody can load."""

import json
from pathlib import Path

from vla_jax.models.lora import LORA, make_lora, merge
from vla_jax.train.checkpoint import (
    Checkpointer,
    find_folder,
    restore_variables,
    saved_steps,
    write_description,
)


def merge_checkpoint(
    folder: str | Path, out: str | Path, *, step: int | None = None, ema: bool = True
) -> int:
    """Writes the merged weights of a run, which serve alone, into a new folder.

    Args:
        folder: a run folder or its checkpoint folder, trained with `model.lora`.
        out: the new run folder; its `checkpoints` must not exist.
        step: a saved step, the latest by default.
        ema: whether to take the averaged parameters where the run kept them.

    Returns:
        The step that was merged.

    Raises:
        ValueError: no such step, a run without adapters, or a folder that is in use.
    """
    folder, out = find_folder(folder), Path(out) / "checkpoints"
    if out.exists():
        raise ValueError(f"{out} exists already; choose another folder.")
    config = json.loads((folder / "config.json").read_text())
    fields = config["model"].pop(LORA, None)
    if not fields:
        raise ValueError(f"{folder} was trained without model.lora: nothing to merge.")
    variables = restore_variables(folder, step, ema=ema)
    step = saved_steps(folder)[-1] if step is None else step
    variables["params"] = merge(make_lora(fields), variables["params"])
    tokenizer = folder / "tokenizer.model"
    write_description(
        out,
        config=config,
        metadata=json.loads((folder / "metadata.json").read_text()),
        tokenizer=tokenizer.read_bytes() if tokenizer.exists() else None,
    )
    with Checkpointer(out) as checkpoints:
        checkpoints.save_variables(step, variables)
    return step
