"""Going on with a run: from which step, and only if it is still the same run.

What may change in the config is listed here. Most of it steers how a run computes and
reports, not what it learns. The steps are the exception: a run may become longer or
shorter, and a cosine schedule then falls over the new length from there on.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from vla_jax.train.checkpoint import Checkpointer, write_description
from vla_jax.train.feed import Feed

# Patterns of keys that a resumed run may change.
MAY_CHANGE = (
    r"evaluation(\..*)?",
    r"data\.(num_threads|prefetch)",
    r"data\.datasets\.\d+\.(path|statistics)",  # the metadata still has to be the same
    r"train\.(steps|log_every|save_every|keep|eval_every|eval_batches)",
    r"train\.(mesh|sharding|compile_cache|tensorboard|wandb)(\..*)?",
)

# Why a key may not change, where one may wonder.
WHY_NOT = {
    "data.batch_size": "A run is resumed at the number of its next batch, which would "
    "be another sample with batches of another size. train.mesh may change, so the "
    "same batch fits on fewer devices with `fsdp`, or on more with `data`.",
    "num_hosts": "Every host reads its own shards in passing, so another number of "
    "hosts is another order. With data.source='index' it may change.",
}


def find_start(
    checkpoints: Checkpointer,
    config: Mapping[str, Any],
    feed: Feed,
    resume_step: int | None,
) -> dict[str, Any]:
    """Where to go on: step, phase and batch position; all 0 in a new folder.

    It also writes what the weights mean beside them, when nothing speaks against it.

    Args:
        checkpoints: of the run.
        config: as `vla_jax.train.config.resolve` returns it.
        feed: the data.
        resume_step: saved step to go on from; the latest when None.

    Raises:
        ValueError: a damaged or unknown step, or a run of another config, tokenizer or
            data.
    """
    folder, latest = checkpoints.folder, checkpoints.latest()
    wanted = latest if resume_step is None else resume_step
    start = dict(step=0, phase=0, position=0)
    if wanted is not None:
        start = checkpoints.position(wanted)
        before = json.loads((folder / "config.json").read_text())
        require_same(before, config, "config", folder.parent)
        _require_same_tokenizer(folder, feed.tokenizer)
        before = json.loads((folder / "metadata.json").read_text())
        require_same(before, feed.metadata, "data set", folder.parent)
    if jax.process_index() == 0:
        write_description(
            folder, config=config, metadata=feed.metadata, tokenizer=feed.tokenizer
        )
    return start


def require_same(
    before: Mapping[str, Any], now: Mapping[str, Any], what: str, workdir: Any
) -> None:
    """Refuses to go on when something has changed that may not.

    Args:
        before: the stored config or metadata.
        now: the present one.
        what: "config" or "data set", for the message.
        workdir: the folder of the run, for the message.

    Raises:
        ValueError: with every key that differs and both of its values.
    """
    changes = changed_keys(before, now)
    if changes:
        lines = "".join(f"\n  {key}: {a!r} -> {b!r}" for key, a, b in changes)
        why = "".join(f"{WHY_NOT[key]}\n" for key, _, _ in changes if key in WHY_NOT)
        raise ValueError(
            f"{workdir} was started with another {what}:{lines}\n{why}"
            "Undo the change to go on, or start in another folder. Only these may "
            f"change: {', '.join(MAY_CHANGE)}, and the steps of the last phase."
        )


def changed_keys(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Lists `(key, value before, value now)` of all that differs and may not."""
    phases = len(now.get("train", {}).get("phases", ()))
    allowed = (*MAY_CHANGE, rf"train\.phases\.{phases - 1}\.steps")
    # Through JSON, a tuple and a list are the same.
    before = dict(_flatten(json.loads(json.dumps(before))))
    now = dict(_flatten(json.loads(json.dumps(now))))
    absent = "(absent)"
    return [
        (key, before.get(key, absent), now.get(key, absent))
        for key in sorted({**before, **now})
        if before.get(key, absent) != now.get(key, absent)
        and not any(re.fullmatch(pattern, key) for pattern in allowed)
    ]


def _flatten(tree: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in children:
        key = f"{prefix}{key}"
        if isinstance(value, dict | list) and value:
            yield from _flatten(value, f"{key}.")
        else:
            yield key, value


def _require_same_tokenizer(folder: Path, now: bytes | None) -> None:
    path = folder / "tokenizer.model"
    before = path.read_bytes() if path.exists() else None
    if before != now:
        raise ValueError(
            f"{folder.parent} was started with another tokenizer: {path} differs from "
            "the one of data.text.model, and the text weights mean its ids. Name that "
            "file there to go on, or start in another folder."
        )
