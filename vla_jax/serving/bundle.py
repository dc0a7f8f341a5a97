"""A policy as a folder that serves alone.

config.json                   sizes, model, how to play it, where it comes from
model.safetensors             the weights
policy.stablehlo              the compiled form, see `vla_jax.serving.program`
policy_preprocessor.json      resizing, tokenizer, normalization, in LeRobot's manner
policy_postprocessor.json     the way back
tokenizer.json  *.safetensors states of the processors
example.safetensors           an input, and the actions it must give
files.json                    size and SHA-256 of every file above
README.md                     the model card; free to be edited
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_jax.data.unigram import UnigramTokenizer
from vla_jax.serving.manifest import check_manifest, write_manifest
from vla_jax.serving.policy import PROGRAMS, Policy
from vla_jax.serving.processors import (
    FILES,
    lerobot_name,
    read_statistics,
    read_tokenizer,
    write_processors,
)
from vla_jax.serving.program import PROGRAM, load_program
from vla_jax.serving.schema import Schema
from vla_jax.serving.tensors import read_tensors, write_tensors

FORMAT = 1  # raised when an older version could not load a bundle
_CONFIG, _WEIGHTS, _EXAMPLE, _CARD = (
    "config.json",
    "model.safetensors",
    "example.safetensors",
    "README.md",
)


def write_bundle(
    folder: str | Path,
    *,
    schema: Schema,
    model: Mapping[str, Any],
    metadata: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    tokenizer: UnigramTokenizer,
    program: bytes,
    example: Mapping[str, np.ndarray],
    details: Mapping[str, Any],
    card: str,
) -> Path:
    """Writes a bundle; the folder appears as a whole.

    Args:
        folder: where; must not exist, or be empty.
        schema: what the policy reads and gives.
        model: the `model` section of the config.
        metadata: `Source.metadata()` with the one data set that is served.
        weights: arrays by path.
        tokenizer: of the instructions.
        program: the serialized program.
        example: inputs and `actions`.
        details: further keys of config.json.
        card: the model card, Markdown.

    Raises:
        ValueError: the folder exists and holds something.
    """
    require_free(folder)
    folder = Path(folder)
    place = folder.with_name(f".{folder.name}.{os.getpid()}")
    place.mkdir(parents=True)
    try:
        (dataset,) = metadata["datasets"]
        kinds = metadata["normalization"]
        write_processors(place, schema, kinds, dataset["statistics"], tokenizer)
        write_tensors(place / _WEIGHTS, weights, {"format": "vla_jax"})
        write_tensors(place / _EXAMPLE, example)
        (place / PROGRAM).write_bytes(program)
        without = {k: v for k, v in dataset.items() if k != "statistics"}
        config = {
            "type": "vla_jax_policy",
            "format": FORMAT,
            **_features(schema, kinds),
            "schema": schema.to_json(),
            **details,
            "model": dict(model),
            "metadata": {**metadata, "datasets": [without]},
        }
        (place / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        write_manifest(place, (_CONFIG, _WEIGHTS, _EXAMPLE, PROGRAM, *FILES))
        (place / _CARD).write_text(card)
        if folder.is_dir():
            folder.rmdir()
        os.replace(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return folder


def require_free(folder: str | Path) -> None:
    """Raises ValueError where a bundle cannot be written because something is there."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already; choose another --out or delete it.")


def load_bundle(
    folder: str | Path, *, program: str = "exported", batch_sizes: Sequence[int] = (8,)
) -> Policy:
    """As `Policy.load`."""
    if program not in PROGRAMS:
        raise ValueError(f"Unknown program {program!r}; choose one of {PROGRAMS}.")
    folder = Path(folder)
    hashes = check_manifest(folder)
    config = json.loads((folder / _CONFIG).read_text())
    if config.get("type") != "vla_jax_policy" or config.get("format") != FORMAT:
        raise ValueError(
            f"{folder} is a {config.get('type')!r} of format {config.get('format')!r}; "
            f"this version loads 'vla_jax_policy' of format {FORMAT}. Export it anew."
        )
    schema = Schema.from_json(config["schema"])
    weights = read_tensors(folder / _WEIGHTS)
    common: dict[str, Any] = dict(
        execute=config["execute"],
        ensemble=config["ensemble"],
        batch_sizes=batch_sizes,
        description={
            **config["provenance"],
            "simulation": config["simulation"],
            "weights_sha256": hashes[_WEIGHTS],
            "program": program,
        },
        example=read_tensors(folder / _EXAMPLE),
    )
    tokenizer = read_tokenizer(folder)
    if program == "exported":
        predict = load_program(
            (folder / PROGRAM).read_bytes(), weights, schema, config["exported"]
        )
        return Policy(predict, schema, tokenizer, **common)
    # The model's code, and with it flax, is needed only here.
    from vla_jax.models.build import build_model
    from vla_jax.serving.live import live_policy
    from vla_jax.serving.program import unflatten

    metadata = config["metadata"]
    entry = {**metadata["datasets"][0], "statistics": read_statistics(folder)}
    metadata = {**metadata, "datasets": [entry]}
    model = build_model(config["model"], metadata)
    return live_policy(model, unflatten(weights), metadata, tokenizer, **common)


def _features(schema: Schema, kinds: Mapping[str, str]) -> dict:
    """The keys that readers of LeRobot's config.json look for."""
    h, w = schema.image_size
    inputs: dict[str, dict] = {
        f"observation.images.{camera}": {"type": "VISUAL", "shape": [3, h, w]}
        for camera in schema.cameras
    }
    inputs["observation.state"] = {"type": "STATE", "shape": [schema.proprio_dim]}
    return {
        "input_features": inputs,
        "output_features": {"action": {"type": "ACTION", "shape": [schema.action_dim]}},
        "normalization_mapping": {
            "VISUAL": "IDENTITY",
            "STATE": lerobot_name(kinds["proprio"]),
            "ACTION": lerobot_name(kinds["action"]),
        },
        "n_obs_steps": schema.window,
        "chunk_size": schema.chunk,
    }
