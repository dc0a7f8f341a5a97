"""What happens before and after the model, as files in LeRobot's manner.

LeRobot keeps normalization out of the weights: `policy_preprocessor.json` and
`policy_postprocessor.json` list steps by name, and a step may point to a file of
arrays. The steps here have names of their own, because LeRobot's normalizer knows no
dimension that stays as it is, as the gripper does.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_jax.data.statistics import Statistics, action_mask
from vla_jax.data.unigram import UnigramTokenizer
from vla_jax.serving.schema import Schema
from vla_jax.serving.tensors import read_tensors, write_tensors

PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
TOKENIZER = "tokenizer.json"
_PRE_STATE = "policy_preprocessor_step_2_normalize.safetensors"
_POST_STATE = "policy_postprocessor_step_0_unnormalize.safetensors"
FILES = (PREPROCESSOR, POSTPROCESSOR, TOKENIZER, _PRE_STATE, _POST_STATE)

_NAMES = {"none": "IDENTITY", "quantile": "QUANTILES"}  # others by their own name


def write_processors(
    folder: Path,
    schema: Schema,
    normalization: Mapping[str, str],
    statistics: Mapping[str, Mapping[str, Any]],
    tokenizer: UnigramTokenizer,
) -> None:
    """Writes both processors with their states and the tokenizer.

    Args:
        folder: of the bundle.
        schema: what the policy reads.
        normalization: kinds for "action" and "proprio".
        statistics: `Statistics.to_json()` of "action" and "proprio".
        tokenizer: of the instructions.
    """
    pre = [
        _step(
            "resize",
            height=schema.image_size[0],
            width=schema.image_size[1],
            cameras=list(schema.cameras),
            filter="triangle, antialiased; depth: nearest",
        ),
        _step(
            "tokenize",
            TOKENIZER,
            max_length=schema.text_length,
            truncation=schema.text_truncate,
            padding_side="right",
            normalization="NFKC, casefold, single spaces",
        ),
        _step(
            "normalize",
            _PRE_STATE,
            features={
                "observation.state": {"type": "STATE", "shape": [schema.proprio_dim]}
            },
            norm_map={"STATE": lerobot_name(normalization["proprio"])},
        ),
    ]
    post = [
        _step(
            "unnormalize",
            _POST_STATE,
            features={"action": {"type": "ACTION", "shape": [schema.action_dim]}},
            norm_map={"ACTION": lerobot_name(normalization["action"])},
            normalized_dimensions=action_mask(schema.action).tolist(),
        )
    ]
    for name, steps in ((PREPROCESSOR, pre), (POSTPROCESSOR, post)):
        content = {"name": name.removesuffix(".json"), "steps": steps}
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / TOKENIZER).write_text(json.dumps(tokenizer.to_json()) + "\n")
    write_tensors(
        folder / _PRE_STATE, _arrays("observation.state", statistics["proprio"])
    )
    write_tensors(folder / _POST_STATE, _arrays("action", statistics["action"]))


def read_statistics(folder: Path) -> dict[str, dict]:
    """The statistics of both processors, as `Source.metadata()` has them.

    Raises:
        ValueError: a file is damaged or lacks an array.
    """
    return {
        "proprio": _statistics(folder / _PRE_STATE, "observation.state"),
        "action": _statistics(folder / _POST_STATE, "action"),
    }


def read_tokenizer(folder: Path) -> UnigramTokenizer:
    """The tokenizer of a bundle.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / TOKENIZER
    try:
        return UnigramTokenizer.from_json(json.loads(path.read_text()))
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def lerobot_name(kind: str) -> str:
    """What LeRobot calls a normalization, as far as it has it."""
    return _NAMES.get(kind, kind.upper())


def _step(name: str, state_file: str = "", **config: Any) -> dict:
    step: dict[str, Any] = {"registry_name": f"vla_jax/{name}", "config": config}
    return step | ({"state_file": state_file} if state_file else {})


def _arrays(feature: str, statistics: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """One array per field; numbers that nobody knows become NaN."""
    kinds = {"count": np.int64, "tiny": np.bool_}
    return {
        f"{feature}.{key}": np.array(value, kinds.get(key, np.float64))
        for key, value in statistics.items()
    }


def _statistics(path: Path, feature: str) -> dict:
    arrays = read_tensors(path)
    found = {
        name.removeprefix(f"{feature}."): array.tolist()
        for name, array in arrays.items()
        if name.startswith(f"{feature}.")
    }
    try:
        return Statistics.from_json(found).to_json()
    except KeyError as error:
        raise ValueError(f"{path} lacks the array {feature}.{error.args[0]}.") from None
