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

# (pattern of a whole path, mesh axes per array axis counted from the last). Axes in
# front, such as the layers of a scanned stack, are left whole.
RULES: tuple[tuple[str, tuple[str | tuple[str, ...] | None, ...]], ...] = (
    # [d heads d/heads], and [heads d/heads d] back.
    (r"(.*/)?(q|k|v|query|key|value)/kernel", ("fsdp", "tensor", None)),
    (r"(.*/)?(q|k|v|query|key|value)/bias", ("tensor", None)),
    (r"(.*/)?\w*attention\w*/out/kernel", ("tensor", None, "fsdp")),
    # [d hidden], and [hidden d] back.
    (r"(.*/)?(mlp_in|mlp_gate|gate|up|fc1)/kernel", ("fsdp", "tensor")),
    (r"(.*/)?(mlp_in|mlp_gate|gate|up|fc1)/bias", ("tensor",)),
    (r"(.*/)?(mlp_out|down|fc2)/kernel", ("tensor", "fsdp")),
    # A table of tokens is split by rows alone: devices look up what they hold, and sum.
    # Split by features over axes that share the batch as well, its gradient makes XLA
    # copy the tokens of the batch to every device.
    (r"(.*/)?embed\w*/embedding", (("fsdp", "tensor"), None)),
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
        divide the array. A large array that no rule splits over `fsdp` is split there
        along its largest axis that divides.
    """
    large = math.prod(shape) >= min_size

    def parts(names):
        return math.prod(mesh_shape[name] for name in names)

    spec = []
    for length, names in zip(shape, _rule(path, len(shape)), strict=True):
        names = [n for n in names if mesh_shape[n] > 1 and (large or n != "fsdp")]
        while length % parts(names):
            names.pop()
        spec.append(names)
    if large and mesh_shape["fsdp"] > 1 and not any("fsdp" in names for names in spec):
        size = mesh_shape["fsdp"]
        free = [a for a, n in enumerate(shape) if not spec[a] and n % size == 0]
        if free:
            spec[max(free, key=lambda axis: shape[axis])] = ["fsdp"]
    while spec and not spec[-1]:
        spec.pop()
    return PartitionSpec(
        *[tuple(names) if len(names) > 1 else "".join(names) or None for names in spec]
    )


def _rule(path: str, num_axes: int) -> list[tuple[str, ...]]:
    """The mesh axes of every array axis, none where no rule fits."""
    for pattern, spec in RULES:
        if len(spec) <= num_axes and re.fullmatch(pattern, path):
            named = [
                (names,) if isinstance(names, str) else names or () for names in spec
            ]
            return [()] * (num_axes - len(spec)) + named
    return [()] * num_axes
