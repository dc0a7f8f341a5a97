"""The default placement of every parameter: one table from path to mesh axes.

A transformer is split over `tensor` as in Megatron-LM (Shoeybi et al., 2019): attention
by heads, the perceptron by hidden units, so that each half of a layer needs a single
sum over devices. Everything large is split over `fsdp` besides.

The table asks, it does not insist: an axis that the devices do not divide stays whole,
and so does, on `fsdp`, an array too small to be worth the messages. The rules that a
user writes in `train.sharding` come first and are strict.
"""

import math
import re
from collections.abc import Mapping

from jax.sharding import PartitionSpec

# (pattern of a whole path, mesh axis per array axis counted from the last). Axes in
# front, such as the layers of a scanned stack, are left whole.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    # [d heads d/heads], and [heads d/heads d] back.
    (r"(.*/)?(q|k|v|query|key|value)/kernel", ("fsdp", "tensor", None)),
    (r"(.*/)?(q|k|v|query|key|value)/bias", ("tensor", None)),
    (r"(.*/)?\w*attention\w*/out/kernel", ("tensor", None, "fsdp")),
    # [d hidden], and [hidden d] back.
    (r"(.*/)?(mlp_in|mlp_gate|gate|up|fc1)/kernel", ("fsdp", "tensor")),
    (r"(.*/)?(mlp_in|mlp_gate|gate|up|fc1)/bias", ("tensor",)),
    (r"(.*/)?(mlp_out|down|fc2)/kernel", ("tensor", "fsdp")),
    # The vocabulary is the long axis of a table of tokens.
    (r"(.*/)?embed\w*/embedding", ("tensor", "fsdp")),
)


def default_spec(
    mesh_shape: Mapping[str, int],
    path: str,
    shape: tuple[int, ...],
    *,
    min_size: int,
) -> PartitionSpec:
    """Where an array lies when the user says nothing about it.

    Args:
        mesh_shape: devices along each mesh axis.
        path: of the array, as `vla_jax.train.paths` names it.
        shape: of the array.
        min_size: arrays with fewer elements are not split over `fsdp`.

    Returns:
        The axes of the first rule whose pattern and number of axes fit, as far as they
        divide the array. What no rule splits over `fsdp` is split there along its
        largest axis that divides.
    """
    spec = list(_rule(path, len(shape)))
    for axis, name in enumerate(spec):
        parts = 1 if name is None else mesh_shape[name]
        small = name == "fsdp" and math.prod(shape) < min_size
        if parts == 1 or small or shape[axis] % parts:
            spec[axis] = None
    parts = mesh_shape["fsdp"]
    if parts > 1 and "fsdp" not in spec and math.prod(shape) >= min_size:
        free = [a for a, n in enumerate(shape) if spec[a] is None and n % parts == 0]
        if free:
            spec[max(free, key=lambda axis: shape[axis])] = "fsdp"
    while spec and spec[-1] is None:
        spec.pop()
    return PartitionSpec(*spec)


def _rule(path: str, num_axes: int) -> tuple[str | None, ...]:
    for pattern, spec in RULES:
        if len(spec) <= num_axes and re.fullmatch(pattern, path):
            return (None,) * (num_axes - len(spec)) + spec
    return (None,) * num_axes
