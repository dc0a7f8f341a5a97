"""From a checkpoint to a bundle, checked before it is written."""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vla_jax.data.clip_tokens import CLIPTokenizer
from vla_jax.data.text import Tokenizer
from vla_jax.data.unigram import UnigramTokenizer
from vla_jax.models.build import build_model
from vla_jax.serving.bundle import require_free, write_bundle
from vla_jax.serving.card import model_card
from vla_jax.serving.live import make_forward
from vla_jax.serving.playing import ChunkPlayer
from vla_jax.serving.policy import Policy
from vla_jax.serving.processors import PortableTokenizer
from vla_jax.serving.program import PLATFORMS, export_program, flatten, load_program
from vla_jax.serving.sampling import change_sampling, parse_sampling
from vla_jax.serving.schema import Schema, pick_dataset
from vla_jax.train.checkpoint import find_folder, restore_variables, saved_steps

# Between the exported and the live policy, as a share of the largest action or of 1.
TOLERANCE = 1e-5

_CHECKED_ROWS = 3  # of the call that compares both
_PACKAGES = ("vla_jax", "jax", "jaxlib", "flax", "numpy")
_PHRASES = (
    "open the drawer",
    "Pick up the red ball, then put it into the 2nd box!",
    "schließe die Tür",
    "引き出しを開ける 🙂",
    "xyzzy",
)


def export_policy(
    checkpoint: str | Path,
    out: str | Path,
    *,
    step: int | None = None,
    ema: bool = True,
    dataset: str | None = None,
    execute: int | None = None,
    ensemble: float | None = None,
    instruction: str = "open the drawer",
    evaluation: str | Path | None = None,
    platforms: Sequence[str] = PLATFORMS,
    sampling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the bundle of a checkpoint.

    Args:
        checkpoint: a run folder or the checkpoint folder in it.
        out: the bundle's folder, which must not exist or be empty.
        step: a saved step; the latest when None.
        ema: take the averaged parameters where the run kept them.
        dataset: whose robot is driven; needed after training on a mixture.
        execute, ensemble: how to play chunks; where both are None, as the run's
            `config.evaluation` says.
        instruction: of the example.
        evaluation: an `evaluation.json` of these weights for the model card; where
            None, those beside the run are looked through.
        platforms: what the program is lowered for.
        sampling: as in `Policy.from_checkpoint`.

    Returns:
        what was found on the way: `difference` between exported and live actions, the
        `step`, and the `evaluation` that entered the card, or None.

    Raises:
        ValueError: no such checkpoint, names or numbers that do not fit, or a program
            that does not give the live policy's actions.
    """
    require_free(out)
    folder = find_folder(checkpoint)
    variables = restore_variables(folder, step, ema=ema)
    step = saved_steps(folder)[-1] if step is None else step
    config = json.loads((folder / "config.json").read_text())
    metadata = json.loads((folder / "metadata.json").read_text())
    entry = pick_dataset(metadata["datasets"], dataset)
    schema = Schema.from_metadata(metadata, dataset)
    if execute is None and ensemble is None:
        played = config.get("evaluation", {})
        execute, ensemble = played.get("execute"), played.get("ensemble")
    ChunkPlayer(schema.chunk, execute=execute, ensemble=ensemble)  # checks
    tokenizer = portable_tokenizer(Tokenizer.from_file(folder / "tokenizer.model"))
    section = change_sampling(config["model"], sampling)
    model = build_model(section, metadata)
    forward = make_forward(model, metadata, dataset)
    weights = {k: np.asarray(v) for k, v in flatten(variables).items()}
    program, exported = export_program(forward, variables, schema, platforms)
    live = Policy(
        functools.partial(jax.jit(forward), variables),
        schema,
        tokenizer,
        batch_sizes=(_CHECKED_ROWS,),
    )
    row = example_row(live, entry, instruction)
    example = {key: value[None] for key, value in row.items()}
    example["actions"] = live.predict([row])
    if jax.default_backend() in {*platforms, "gpu" if "cuda" in platforms else ""}:
        again = Policy(
            load_program(program, weights, schema, exported),
            schema,
            tokenizer,
            batch_sizes=(_CHECKED_ROWS,),
        )
        exported["checked_on"] = [jax.default_backend()]
        exported["difference"] = _difference(live, again, row)
    provenance = {
        "checkpoint": folder.parent.name,
        "step": step,
        "steps_planned": config["train"]["steps"],
        "sampling": dict(sampling or {}),
        "averaged": bool(ema and config["train"].get("ema_decay")),
        "datasets": [
            {
                key: other[key]
                for key in ("name", "weight", "num_episodes", "num_steps", "control_hz")
            }
            for other in metadata["datasets"]
        ],
        "seed": config["seed"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code": code_version(),
        "evaluation": find_evaluation(folder, step, evaluation, sampling),
    }
    details = {
        "execute": execute,
        "ensemble": ensemble,
        "example": {"instruction": instruction},
        # How its simulator is set up: cameras and the length of an episode.
        "simulation": {
            key: config.get("evaluation", {}).get(key)
            for key in ("primary", "horizon", "image_size")
        },
        "exported": exported,
        "provenance": provenance,
    }
    write_bundle(
        out,
        schema=schema,
        model=section,
        metadata={
            **metadata,
            # Prompts and the like are found by the place among all data sets.
            "datasets": [{"embodiment": metadata["datasets"].index(entry), **entry}],
            # Of a mixture, only the one robot that is served.
            **{
                key: {schema.dataset: metadata[key].get(schema.dataset, empty)}
                for key, empty in (("camera_matrices", {}), ("depth_cameras", []))
                if key in metadata
            },
        },
        weights=weights,
        tokenizer=tokenizer,
        program=program,
        example=example,
        details=details,
        card=model_card(Path(out).name, schema, details, weights),
    )
    return {
        "difference": exported.get("difference"),
        "step": step,
        "evaluation": provenance["evaluation"],
    }


def portable_tokenizer(tokenizer: Tokenizer | CLIPTokenizer) -> PortableTokenizer:
    """The same tokenizer without SentencePiece.

    Raises:
        ValueError: it does not give the same ids, because the model is not a unigram
            model as `launch/train_tokenizer.py` trains it.
    """
    if isinstance(tokenizer, CLIPTokenizer):
        return tokenizer
    portable = UnigramTokenizer(tokenizer.pieces())
    length = 256
    expected, found = (t.encode(_PHRASES, length) for t in (tokenizer, portable))
    if not all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True)):
        raise ValueError(
            "The tokenizer of this run is no plain unigram model, so a bundle cannot "
            "hold it; train one with launch/train_tokenizer.py."
        )
    return portable


def example_row(policy: Policy, entry: Mapping[str, Any], instruction: str) -> dict:
    """An input of random pictures and a proprio in the middle of the data."""
    rng, schema = np.random.default_rng(0), policy.schema
    proprio = np.array(entry["statistics"]["proprio"]["mean"], np.float32)
    image = {
        camera: rng.integers(0, 256, (*schema.image_size, 3), np.uint8)
        for camera in schema.cameras
    }
    depth = {
        camera: rng.uniform(0.3, 2.0, schema.image_size).astype(np.float32)
        for camera in schema.depth
    }
    matrices: dict[str, dict[str, np.ndarray]] = {}
    for name in schema.matrices:
        kind, camera = name.split("/", 1)
        size = {"intrinsics": 3, "extrinsics": 4}[kind]
        matrices.setdefault(camera, {})[kind] = np.eye(size, dtype=np.float32)
    observation = {
        "image": image,
        "proprio": proprio,
        "depth": depth,
        "camera": matrices,
    }
    frames = [schema.check(observation)] * schema.window
    return policy.row(frames, instruction)


def find_evaluation(
    folder: Path,
    step: int,
    path: str | Path | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The success rates that belong to these weights, for the model card.

    Args:
        folder: the checkpoint folder.
        step: the step that is exported.
        path: an `evaluation.json`; where None, `evaluation/` in the run folder and
            beside it are looked at.
        sampling: how it is sampled, as in `export_policy`.

    Raises:
        ValueError: `path` is no evaluation, or one of other weights or sampling.
    """
    listing = (folder / str(step) / "files.json").read_bytes()
    weights = hashlib.sha256(listing).hexdigest()[:16]
    run = folder.parent
    places = [run / "evaluation", run.parent / "evaluation"]
    paths = [Path(path)] if path else [p / "evaluation.json" for p in places]
    for place in paths:
        try:
            report = json.loads(place.read_text())
            settings, tasks = report["settings"], report["tasks"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            if path:
                raise ValueError(f"{place} is no evaluation: {error}.") from error
            continue
        other = settings.get("weights") != weights
        other |= parse_sampling(settings.get("sampling", "")) != dict(sampling or {})
        if other or settings.get("blank") != "nothing":
            if path:
                raise ValueError(
                    f"{place} is of other weights, of another --sampling or of an "
                    f"ablation; evaluate step {step} of {folder} with "
                    "launch/evaluate.py."
                )
            continue
        return {
            "environment": settings["environment"],
            "seed": settings["seed"],
            "execute": settings["execute"],
            "ensemble": settings["ensemble"],
            "mean_success": report["mean_success"],
            "interval": report["interval"],
            "tasks": tasks,
        }
    return None


def code_version() -> dict[str, str]:
    """Versions of the packages, and the commit where this runs from a checkout."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    root = Path(__file__).resolve().parents[2]
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
        if commit:
            found["commit"] = commit + (" with changes" if changed else "")
    return found


def _difference(live: Policy, exported: Policy, row: dict) -> float:
    """Largest difference in units of the actions' scale."""
    other = {**row, "seed": np.uint32(1), "call": np.uint32(2)}
    expected, found = (p.predict([row, other, row]) for p in (live, exported))
    scale = max(1.0, float(np.abs(expected).max()))
    worst = float(np.abs(expected - found).max()) / scale
    if worst > TOLERANCE:
        raise ValueError(
            f"The exported program differs from the policy by {worst:.2g}; at most "
            f"{TOLERANCE:.0e} is allowed. Export on a CPU, or report the model."
        )
    return worst


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True
        )
    except OSError:  # no git on this machine
        return ""
    return done.stdout.strip()
