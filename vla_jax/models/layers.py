"""Parameters of a stack of layers: one by one, or behind each other for a scan.

One by one they are called `layer_0/...`, `layer_1/...`; scanned they are `layers/...`
with the layer as first axis. Both hold the same numbers.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

SCANNED = "layers"
_ONE = re.compile(r"layer_(\d+)")


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Puts every `layer_0`, `layer_1`, ... of a tree into one `layers`.

    Raises:
        ValueError: a number is missing, or the layers of a stack differ in shape.
    """
    numbers = sorted(int(m[1]) for key in params if (m := _ONE.fullmatch(key)))
    tree = {
        key: _below(stack_layers, value)
        for key, value in params.items()
        if not _ONE.fullmatch(key)
    }
    if not numbers:
        return tree
    if numbers != list(range(len(numbers))) or SCANNED in tree:
        raise ValueError(
            f"Layers {numbers} beside {sorted(tree)} do not make a stack: expected 0 "
            f"to {len(numbers) - 1} and no {SCANNED!r}."
        )
    layers = [_below(stack_layers, params[f"layer_{number}"]) for number in numbers]
    shapes = [jax.tree.map(np.shape, layer) for layer in layers]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            "Layers of different shapes cannot be scanned; set scan to False."
        )
    stack = jax.tree.map(lambda *leaves: _library(leaves[0]).stack(leaves), *layers)
    return {**tree, SCANNED: stack}


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Takes every `layers` of a tree apart into `layer_0`, `layer_1`, ..."""
    tree = {}
    for key, value in params.items():
        value = _below(unstack_layers, value)
        if key != SCANNED:
            tree[key] = value
            continue
        for number in range(len(jax.tree.leaves(value)[0])):
            tree[f"layer_{number}"] = jax.tree.map(lambda x, n=number: x[n], value)
    return tree


def _below(convert: Callable, value: Any) -> Any:
    return convert(value) if isinstance(value, Mapping) else value


def _library(leaf: Any):
    return np if isinstance(leaf, np.ndarray) else jax.numpy
