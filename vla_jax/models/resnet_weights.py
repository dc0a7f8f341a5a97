"""ResNet weights from a local file, in the naming of torchvision or of transformers.

The map is explicit: every array of `vla_jax.models.resnet.ResNet` has one name per
convention, and what a file has too much or too little of is told by name.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vla_jax.models.resnet import BOTTLENECK, LEVELS, STAGES, ResNet
from vla_jax.models.tensor_files import read_tensors

# Array of a norm -> its name in PyTorch.
_AFFINE = {"scale": "weight", "bias": "bias"}
_MOMENTS = {"mean": "running_mean", "var": "running_var"}

# What a file may hold besides: the classifier and PyTorch's counters of batches.
_UNUSED = r"(fc|classifier(\.\d+)?)\.(weight|bias)|.*\.num_batches_tracked"


def resnet_names(model: ResNet, convention: str) -> dict[tuple[str, ...], str]:
    """Where every array of a ResNet stands in a file.

    Args:
        model: which depth, norm and levels.
        convention: "torchvision" or "transformers".

    Returns:
        Path in the variables, such as `("params", "layer1_0", "conv1", "kernel")`, to
        the name in the file.
    """
    place = {"torchvision": _torchvision, "transformers": _transformers}[convention]
    names: dict[tuple[str, ...], str] = {}

    def add(path: tuple[str, ...], conv: str, norm: str) -> None:
        """A convolution at `path` with its norm."""
        above = path[:-1]
        kernel = f"{place(*path, convolution=True)}.weight"
        names["params", *above, conv, "kernel"] = kernel
        arrays = _AFFINE | (_MOMENTS if model.norm == "frozen" else {})
        collection = "constants" if model.norm == "frozen" else "params"
        for array, name in arrays.items():
            key = (collection, *above, norm, array)
            names[key] = f"{place(*path, convolution=False)}.{name}"

    add(("stem",), "stem_conv", "stem_norm")
    convolutions = 3 if model.depth in BOTTLENECK else 2
    for stage, count in enumerate(STAGES[model.depth], start=1):
        if LEVELS.index(f"layer{stage}") > LEVELS.index(model.last):
            break
        for index in range(count):
            block = f"layer{stage}_{index}"
            for number in range(1, convolutions + 1):
                add((block, str(number)), f"conv{number}", f"norm{number}")
            # The first block of layer1 keeps its shape, but for the wide blocks.
            if index == 0 and (stage > 1 or convolutions == 3):
                add((block, "shortcut"), "shortcut_conv", "shortcut_norm")
    return names


def load_resnet(
    model: ResNet, path: str | Path, *, entry: str = ""
) -> dict[str, dict[str, Any]]:
    """Reads the variables of `model` from a `.pth` or `.safetensors` file.

    Args:
        model: the module that the weights are for.
        path: the file.
        entry: key of the state dict in a `.pth` file that holds more than that.

    Returns:
        `{"params": ..., "constants": ...}`, float32, as `model.init` would give them.

    Raises:
        ValueError: naming the keys that are missing, unexpected or of another shape.
    """
    tensors = read_tensors(path, entry)
    convention, prefix = _recognize(tensors, path)
    tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    names, shapes = resnet_names(model, convention), _shapes(model)
    later = _later_layers(model, convention)
    known = set(names.values())
    missing = sorted(known - set(tensors))
    unexpected = sorted(
        name
        for name in set(tensors) - known
        if not re.fullmatch(_UNUSED, name) and not (later and re.match(later, name))
    )
    variables: dict[str, dict[str, Any]] = {}
    wrong = []
    for key, name in names.items():
        if name not in tensors:
            continue
        array = np.asarray(tensors[name], np.float32)
        if key[-1] == "kernel" and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)  # [out in h w] -> [h w in out]
        if array.shape != shapes[key]:
            wrong.append(f"{name}: {array.shape} in the file, {shapes[key]} needed")
            continue
        place = variables
        for part in key[:-1]:
            place = place.setdefault(part, {})
        place[key[-1]] = np.ascontiguousarray(array)
    if missing or unexpected or wrong:
        raise ValueError(
            f"{path} does not fit a ResNet-{model.depth} with norm={model.norm!r} "
            f"({convention} names): missing {_some(missing)}; unexpected "
            f"{_some(unexpected)}; of another shape {_some(wrong)}."
        )
    return variables


def _torchvision(first: str, part: str = "", *, convolution: bool) -> str:
    if first == "stem":
        return "conv1" if convolution else "bn1"
    layer = first.replace("_", ".")
    if part == "shortcut":
        return f"{layer}.downsample.{0 if convolution else 1}"
    return f"{layer}.{'conv' if convolution else 'bn'}{part}"


def _transformers(first: str, part: str = "", *, convolution: bool) -> str:
    kind = "convolution" if convolution else "normalization"
    if first == "stem":
        return f"embedder.embedder.{kind}"
    stage, index = first.removeprefix("layer").split("_")
    block = f"encoder.stages.{int(stage) - 1}.layers.{index}"
    if part == "shortcut":
        return f"{block}.shortcut.{kind}"
    return f"{block}.layer.{int(part) - 1}.{kind}"


def _recognize(tensors: Mapping[str, Any], path: str | Path) -> tuple[str, str]:
    """The convention of a file, and a prefix that all names of the trunk have."""
    stems = {
        "torchvision": "conv1.weight",
        "transformers": "embedder.embedder.convolution.weight",
    }
    for convention, stem in stems.items():
        found = sorted(
            (name for name in tensors if name == stem or name.endswith(f".{stem}")),
            key=len,
        )
        if found and not re.search(r"layer\d|stages", found[0]):
            return convention, found[0].removesuffix(stem)
    raise ValueError(
        f"{path} has neither torchvision's {stems['torchvision']!r} nor transformers' "
        f"{stems['transformers']!r}; its names are {sorted(tensors)[:5]}."
    )


def _later_layers(model: ResNet, convention: str) -> str:
    """Pattern of the layers after `model.last`, which a file may well have."""
    stages = range(LEVELS.index(model.last) + 1, len(LEVELS))
    if convention == "torchvision":
        return "|".join(rf"layer{stage}\." for stage in stages)
    return "|".join(rf"encoder\.stages\.{stage - 1}\." for stage in stages)


def _shapes(model: ResNet) -> dict[tuple[str, ...], tuple[int, ...]]:
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {tuple(part.key for part in keys): leaf.shape for keys, leaf in leaves}


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{names[:8]}{rest}"
