"""Puts the tensors of a PyTorch file where a Flax module keeps its arrays.

A map names, for every array of the module, one tensor of the file; nothing is guessed.
PyTorch keeps a linear layer as `[out in]` and a convolution as `[out in h w]`, and
knows no separate axis for attention heads.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

Place = tuple[str, ...]  # path in the variables, such as ("params", "embed", "kernel")

_NUM_NAMED = 8  # tensors that a message names before it counts the rest


def fit_tensors(
    tensors: Mapping[str, np.ndarray],
    names: Mapping[Place, str],
    shapes: Mapping[Place, tuple[int, ...]],
    *,
    unused: str,
    what: str,
) -> dict[str, dict[str, Any]]:
    """Takes the arrays of a module from a file's tensors.

    Args:
        tensors: what the file holds.
        names: for every array the name of its tensor.
        shapes: of the arrays, as `array_shapes` gives them.
        unused: pattern of names that the file may have besides.
        what: which file and model, for messages.

    Returns:
        Nested variables, float32.

    Raises:
        ValueError: naming what is missing, unexpected or of another shape.
    """
    assert set(names) == set(shapes), set(names) ^ set(shapes)
    known = set(names.values())
    missing = sorted(known - set(tensors))
    unexpected = sorted(
        name for name in set(tensors) - known if not re.fullmatch(unused, name)
    )
    variables: dict[str, dict[str, Any]] = {}
    wrong = []
    for place, name in names.items():
        if name not in tensors:
            continue
        tensor, shape = np.asarray(tensors[name]), shapes[place]
        needed = _file_shape(place, shape)
        while tensor.ndim > len(needed) and tensor.shape[0] == 1:
            tensor = tensor[0]  # Class tokens and positions come as [1 ...].
        if tensor.shape != needed:
            wrong.append(f"{name}: {tensor.shape} in the file, {needed} needed")
            continue
        parent = variables
        for part in place[:-1]:
            parent = parent.setdefault(part, {})
        if place[-1] == "kernel":
            axes = (2, 3, 1, 0) if tensor.ndim == 4 else (1, 0)
            tensor = tensor.transpose(axes)
        array = tensor.reshape(shape).astype(np.float32)
        parent[place[-1]] = np.ascontiguousarray(array)
    if missing or unexpected or wrong:
        raise ValueError(
            f"{what}: missing {_some(missing)}; unexpected {_some(unexpected)}; of "
            f"another shape {_some(wrong)}."
        )
    return variables


def array_shapes(init: Callable[..., Any]) -> dict[Place, tuple[int, ...]]:
    """Shape of every array that `init(key)` would make, without making any."""
    leaves = jax.tree_util.tree_leaves_with_path(
        jax.eval_shape(init, jax.random.key(0))
    )
    return {tuple(part.key for part in keys): leaf.shape for keys, leaf in leaves}


def find_prefix(tensors: Mapping[str, Any], name: str) -> str | None:
    """What stands before `name`: "" or, say, "vit."; None where it is absent."""
    found = [key for key in tensors if key == name or key.endswith(f".{name}")]
    return min(found, key=len).removesuffix(name) if found else None


def split_rows(
    tensors: Mapping[str, np.ndarray], pattern: str, parts: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Cuts stacked tensors, such as query, key and value in one, into equal parts.

    A tensor whose name matches `pattern` is replaced by `<name>[<part>]` of every part;
    one that does not divide stays as it is and is then told as missing.
    """
    out = {}
    for name, tensor in tensors.items():
        if re.fullmatch(pattern, name) and len(tensor) % len(parts) == 0:
            for part, rows in zip(parts, np.split(tensor, len(parts)), strict=True):
                out[f"{name}[{part}]"] = rows
        else:
            out[name] = tensor
    return out


def _file_shape(place: Place, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that PyTorch gives to an array of ours."""
    if place[-1] != "kernel":
        return (int(np.prod(shape)),) if place[-1] == "bias" else shape
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return (outputs, inputs, height, width)
    # The heads of q, k, v come behind their inputs, those of "out" are its inputs.
    split = len(shape) - 1 if place[-2] == "out" else 1
    return (int(np.prod(shape[split:])), int(np.prod(shape[:split])))


def _some(names: list[str]) -> str:
    left = len(names) - _NUM_NAMED
    return f"{names[:_NUM_NAMED]}{f' and {left} more' if left > 0 else ''}"
