"""How a trained generative head is sampled: the fields that need no new training."""

import copy
import json
from collections.abc import Mapping
from typing import Any

from vla_jax.names import did_you_mean

SAMPLING = (
    "num_steps",
    "temperature",
    "integrator",
    "sampler",
    "clip",
    "anchor_seed",
)


def parse_sampling(text: str) -> dict[str, Any]:
    """Reads `num_steps=4+integrator=midpoint`; empty text changes nothing.

    Raises:
        ValueError: a part without an equals sign.
    """
    changes = {}
    for part in filter(None, text.split("+")):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{part!r} is not of the form num_steps=4.")
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = value
    return changes


def change_sampling(
    model: Mapping[str, Any], changes: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The `model` section of a config with another way to sample.

    Args:
        model: of a run.
        changes: fields of the head, one of `SAMPLING`, such as `{"num_steps": 4}`; of
            a part of a head `{"anchor.num_steps": 1}`.

    Raises:
        ValueError: a field that has no part in sampling, or a part of the head that
            does not exist.
    """
    model = copy.deepcopy(dict(model))
    for name, value in (changes or {}).items():
        *parts, field = name.split(".")
        if field not in SAMPLING:
            raise ValueError(
                f"Sampling does not depend on {name!r}; {did_you_mean(field, SAMPLING)}"
            )
        head = model["head"]
        for part in parts:
            inner = [key for key, other in head.items() if isinstance(other, dict)]
            if part not in inner:
                raise ValueError(
                    f"{name!r}: the {head['name']!r} head has no part {part!r}; it has "
                    f"{inner}."
                )
            head = head[part]
        head[field] = value
    return model
