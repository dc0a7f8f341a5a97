"""LoRA: a frozen matrix plus a trained product of two thin ones (Hu et al., 2021).

`W' = W + (alpha / rank) a b`, with `a` drawn from a normal distribution and `b` zero,
so that training starts at the model as it is. The thin matrices lie in `params` beside
the model's own, under `lora/` and the path of what they adapt; the model itself knows
nothing of them and is applied to the sum. So any module can be adapted, and merging is
the same sum made once.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vla_jax.models.layers import SCANNED
from vla_jax.names import check_keys

LORA = "lora"
_DRAW = 0x6C6F7261  # keeps these draws apart from the model's


class Lora(NamedTuple):
    """What is adapted, and how; the section `model.lora` of a config.

    Attributes:
        rank: columns of `a` and rows of `b`.
        alpha: scale of the product, which is divided by the rank.
        targets: patterns that must match the whole path of a kernel.
        train: patterns of what is trained besides, in full, such as `head`; they match
            a path or a module above it.
    """

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] = (r".*/(q|k|v|out|mlp_in|mlp_out)/kernel",)
    train: tuple[str, ...] = ()

    @property
    def frozen(self) -> str:
        """A pattern of all that is neither an adapter nor trained in full."""
        free = "|".join([LORA, *self.train])
        return rf"(?!(?:{free})(?:/|$)).*"


def make_lora(fields: Mapping[str, Any]) -> Lora:
    """Reads the section `model.lora`.

    Raises:
        ValueError: an unknown field, or a rank that is not positive.
    """
    check_keys(fields, Lora._fields, "config.model.lora")
    lists = {key: tuple(fields[key]) for key in ("targets", "train") if key in fields}
    lora = Lora(**{**fields, **lists})
    if lora.rank < 1:
        raise ValueError(f"model.lora.rank is {lora.rank}; expected at least 1.")
    return lora


class LoraModel(NamedTuple):
    """A model with adapters, which is initialized and applied like the model.

    Attributes:
        model: what is adapted.
        lora: how.
    """

    model: nn.Module
    lora: Lora

    @property
    def point_cameras(self) -> tuple[str, ...]:
        """As the model's, see `vla_jax.models.policy.Policy`."""
        return getattr(self.model, "point_cameras", ())

    def init(self, rngs: Mapping[str, jax.Array], *args, method: str, **options) -> Any:
        """The model's variables with adapters; `b` is zero, so they change nothing."""
        variables = self.model.init(rngs, *args, method=method, **options)
        params = variables["params"]
        adapters = init_adapters(self.lora, params, rngs["params"])
        return {**variables, "params": {**params, LORA: adapters}}

    def apply(self, variables: Mapping[str, Any], *args, method: str, **options) -> Any:
        """Applies the model with its adapters added."""
        params = merge(self.lora, variables["params"])
        return self.model.apply(
            {**variables, "params": params}, *args, method=method, **options
        )


def frozen_base(model: nn.Module | LoraModel, variables: Mapping[str, Any]) -> list:
    """Patterns of what a model with adapters never trains; none for other models.

    Args:
        model: what is trained.
        variables: its variables or their shapes.

    Raises:
        ValueError: a pattern of `model.lora.train` that matches nothing.
    """
    if not isinstance(model, LoraModel):
        return []
    paths = ["/".join(path) for path in flatten_dict(variables["params"])]
    for pattern in model.lora.train:
        if not any(re.match(f"(?:{pattern})(?:/|$)", path) for path in paths):
            modules = sorted({path.partition("/")[0] for path in paths})
            raise ValueError(
                f"Pattern {pattern!r} in model.lora.train matches no parameter; the "
                f"modules are {modules}."
            )
    return [model.lora.frozen]


def init_adapters(lora: Lora, params: Mapping[str, Any], rng: jax.Array) -> dict:
    """Draws adapters for every kernel that is a target.

    Raises:
        ValueError: a pattern that matches no kernel, with the kernels there are.
    """
    kernels = {
        path: leaf
        for path, leaf in flatten_dict(params, sep="/").items()
        if path.endswith("kernel")
    }
    targets, adapters = _targets(lora.targets, kernels), {}
    keys = jax.random.split(jax.random.fold_in(rng, _DRAW), len(targets))
    for path, key in zip(targets, keys, strict=True):
        stack, inputs, outputs = matrix_shape(path, kernels[path].shape)
        shape = (*stack, inputs, lora.rank)
        adapters[f"{path}/a"] = jax.random.normal(key, shape) / np.sqrt(inputs)
        adapters[f"{path}/b"] = jnp.zeros((*stack, lora.rank, outputs))
    return unflatten_dict(adapters, sep="/")


def merge(lora: Lora, params: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the adapters to what they adapt and leaves them out.

    Args:
        lora: as in training.
        params: of a `LoraModel`.

    Returns:
        The parameters of the model alone. A sum has the precision of the adapters: a
        small change would be lost in a frozen kernel of bfloat16.
    """
    if LORA not in params:
        raise ValueError(
            f"These parameters have no adapters: expected {LORA!r} among "
            f"{sorted(params)}."
        )
    flat = flatten_dict({k: v for k, v in params.items() if k != LORA}, sep="/")
    adapters = flatten_dict(params[LORA], sep="/")
    for path in sorted({path.rpartition("/")[0] for path in adapters}):
        kernel, a, b = flat[path], adapters[f"{path}/a"], adapters[f"{path}/b"]
        product = (a @ b).reshape(kernel.shape)
        flat[path] = kernel.astype(a.dtype) + lora.alpha / lora.rank * product
    return unflatten_dict(flat, sep="/")


def matrix_shape(path: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, int]:
    """Reads a kernel as matrices: the axes that count them, inputs and outputs.

    The projections to heads, `q`, `k` and `v`, have one input axis; all other kernels
    have one output axis. A scanned stack has the layer in front.
    """
    parts = path.split("/")
    stack = shape[:1] if SCANNED in parts else ()
    shape = shape[len(stack) :]
    inputs = 1 if parts[-2] in ("q", "k", "v") else len(shape) - 1
    return stack, math.prod(shape[:inputs]), math.prod(shape[inputs:])


def _targets(patterns: Iterable[str], kernels: Mapping[str, Any]) -> list[str]:
    found = []
    for pattern in patterns:
        matched = [path for path in kernels if re.fullmatch(pattern, path)]
        if not matched:
            raise ValueError(
                f"Pattern {pattern!r} in model.lora.targets matches no kernel; it must "
                f"match a whole path, and the kernels are {sorted(kernels)}."
            )
        found += matched
    return sorted(set(found))
