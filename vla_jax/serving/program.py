"""The exported program: StableHLO with normalization inside, weights as arguments.

It is lowered once for CPU, CUDA and TPU with a symbolic batch, and runs with JAX alone
(`jax.export` also needs the small package `flatbuffers`); docs/serving.md shows the ten
lines that do so without this library.

JAX promises to read a program for six months; the bundle has the weights and the config
as well, from which it can be exported anew.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.export
import numpy as np

from vla_jax.serving.policy import Predict
from vla_jax.serving.schema import Schema

PROGRAM = "policy.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def export_program(
    forward: Callable,
    variables: Mapping[str, Any],
    schema: Schema,
    platforms: Sequence[str] = PLATFORMS,
) -> tuple[bytes, dict]:
    """Lowers a policy for all platforms.

    Args:
        forward: of `vla_jax.serving.live.make_forward`.
        variables: nested, what the model takes.
        schema: what the policy reads and gives.
        platforms: some of "cpu", "cuda" and "tpu".

    Returns:
        the serialized program, and facts about it for config.json.

    Raises:
        ValueError: a platform that JAX cannot lower for.
    """
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown or not platforms:
        raise ValueError(f"Unknown platforms {unknown}; choose from {PLATFORMS}.")

    def call(weights, inputs):
        return forward(unflatten(weights), inputs)

    (batch,) = jax.export.symbolic_shape("b")
    shapes = {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype)
        for name, (shape, dtype) in schema.input_shapes().items()
    }
    weights = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in flatten(variables).items()
    }
    exported = jax.export.export(jax.jit(call), platforms=list(platforms))(
        weights, shapes
    )
    facts = {
        "file": PROGRAM,
        "platforms": list(exported.platforms),
        "calling_convention": exported.calling_convention_version,
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    return bytes(exported.serialize()), facts


def load_program(
    data: bytes,
    weights: Mapping[str, np.ndarray],
    schema: Schema,
    facts: Mapping[str, Any],
) -> Predict:
    """Makes the program callable with its weights on the device.

    Raises:
        ValueError: JAX cannot read the program, it was not lowered for this platform,
            or its weights or inputs have other shapes than those given.
    """
    made = f"exported with JAX {facts['jax']} on {facts['date'][:10]}"
    otherwise = "Export it anew, or load the bundle with program='live'."
    try:
        exported = jax.export.deserialize(bytearray(data))
    except ImportError as error:
        raise ValueError(f"jax.export needs a package more: {error}") from error
    except Exception as error:  # JAX and its readers name no type of error
        raise ValueError(
            f"JAX {jax.__version__} cannot read the program, {made}: {error}. "
            f"{otherwise}"
        ) from error
    platform = jax.default_backend()
    names = {"gpu": "cuda"}
    if names.get(platform, platform) not in exported.platforms:
        raise ValueError(
            f"The program is for {exported.platforms}, and this machine has "
            f"{platform!r}. {otherwise}"
        )
    _require_shapes(exported, weights, schema)
    return partial(jax.jit(exported.call), jax.device_put(dict(weights)))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dicts by their keys joined with "/"."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The way back from `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def _require_shapes(exported, weights: Mapping, schema: Schema) -> None:
    """Compares what the program takes with what it will be given."""
    args, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
    found = {
        **{f"weight {k}": (v.shape, str(v.dtype)) for k, v in weights.items()},
        **{
            f"input {name}": (("b", *shape), dtype)
            for name, (shape, dtype) in schema.input_shapes().items()
        },
    }
    wanted = {
        **{f"weight {k}": (v.shape, str(v.dtype)) for k, v in args[0].items()},
        **{
            f"input {k}": (("b", *v.shape[1:]), str(v.dtype))
            for k, v in args[1].items()
        },
    }
    lines = [
        f"\n  {name}: the program takes {wanted.get(name, 'none')}, the bundle has "
        f"{found.get(name, 'none')}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if lines:
        raise ValueError(f"The program does not fit the bundle:{''.join(lines[:10])}")
