"""The model card of a bundle: what a stranger has to know before running it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vla_jax.serving.schema import Schema


def model_card(
    name: str,
    schema: Schema,
    details: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
) -> str:
    """Markdown with the front matter that model hubs read.

    Args:
        name: of the policy.
        schema: what it reads and gives.
        details: `execute`, `ensemble`, `exported`, `provenance` as in config.json.
        weights: arrays by path, for their number.
    """
    provenance, exported = details["provenance"], details["exported"]
    count = sum(array.size for array in weights.values())
    parts = [
        "---\nlibrary_name: vla_jax\npipeline_tag: robotics\ntags: [jax]\n---",
        f"# {name}",
        f"A policy for the robot of the data set `{schema.dataset}` with {count:,} "
        f"numbers in its weights, made by `vla_jax` {provenance['code']['vla_jax']}.",
        "## What it reads and gives",
        _interface(schema),
        "Actions of a chunk are played at "
        f"{schema.control_hz:g} Hz, {_playing(details, schema.chunk)}.",
        "## Where it comes from",
        _training(provenance),
        "## How well it does",
        _evaluation(provenance["evaluation"]),
        "## How to run it",
        _usage(exported),
    ]
    return "\n\n".join(parts) + "\n"


def _interface(schema: Schema) -> str:
    h, w = schema.image_size
    rows = [
        (f"`image/{camera}`", f"uint8 [h, w, 3], resized to {h} x {w}")
        for camera in schema.cameras
    ]
    rows += [(f"`depth/{camera}`", "float32 [h, w], metres") for camera in schema.depth]
    rows += [
        (f"`camera/{name.split('/')[1]}/{name.split('/')[0]}`", "float32 matrix")
        for name in schema.matrices
    ]
    rows += [
        ("`proprio`", f"float32 [{schema.proprio_dim}], in the units of the data set"),
        ("`prompt`", f"an instruction of at most {schema.text_length} tokens"),
        ("window", f"{schema.window} frames, the present one last"),
        (
            "`actions`",
            f"float32 [{schema.chunk}, {schema.action_dim}]: "
            f"{', '.join(schema.action)}; a gripper is 1 open, 0 closed",
        ),
    ]
    return _table(("name", "what"), rows)


def _training(provenance: Mapping[str, Any]) -> str:
    code = provenance["code"]
    rows = [
        (
            f"data set `{d['name']}`",
            f"{d['num_episodes']:,} episodes, "
            f"{d['num_steps']:,} steps, weight {d['weight']:g}, {d['control_hz']:g} Hz",
        )
        for d in provenance["datasets"]
    ]
    rows += [
        ("run", f"`{provenance['checkpoint']}`, seed {provenance['seed']}"),
        (
            "step",
            f"{provenance['step']:,} of {provenance['steps_planned']:,}"
            + (", averaged parameters" if provenance["averaged"] else ""),
        ),
        *(
            (f"`{name}`", f"{value}, unlike in training")
            for name, value in provenance.get("sampling", {}).items()
        ),
        ("exported", provenance["date"]),
        ("code", ", ".join(f"{key} {value}" for key, value in code.items())),
    ]
    return _table(("", ""), rows)


def _evaluation(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return "It was not evaluated before it was exported. Measure it before use."
    rows = [
        (task, f"{row['successes']}/{row['episodes']}", _interval(row["interval"]))
        for task, row in report["tasks"].items()
    ]
    if len(rows) > 1:
        whole = f"{report['mean_success']:.1%}"
        rows.append(("all tasks", whole, _interval(report["interval"])))
    return (
        f"Closed loop in {report['environment']}, seed {report['seed']}:\n\n"
        + _table(("task", "success", "95 % interval"), rows)
    )


def _usage(exported: Mapping[str, Any]) -> str:
    checked = exported.get("checked_on")
    difference = (
        f"Its actions were compared with the live model's on {', '.join(checked)}: at "
        f"most {exported['difference']:.1e} apart. "
        if checked
        else ""
    )
    others = [p for p in exported["platforms"] if p not in (checked or ())]
    lowered = f"For {', '.join(others)} it was lowered, not run. " if others else ""
    return (
        "    python launch/serve.py --policy=FOLDER --port=8000\n\n"
        "or from Python, `vla_jax.serving.policy.Policy.load(FOLDER)`. The exported "
        f"program was made with JAX {exported['jax']}. {difference}{lowered}"
        "`files.json` holds the hash of every file but this one. Load bundles only "
        "from people you trust: a compiled program is code."
    )


def _playing(details: Mapping[str, Any], chunk: int) -> str:
    if details["ensemble"] is not None:
        return f"averaged over overlapping chunks with rate {details['ensemble']:g}"
    execute = details["execute"] or chunk
    return f"{execute} of {chunk} before the policy looks again"


def _interval(interval) -> str:
    low, high = interval
    return f"{low:.1%} to {high:.1%}"


def _table(head, rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
