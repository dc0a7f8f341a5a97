"""Floating-point operations of a step, counted from the program, and their share of
what the device could do (MFU, model FLOPs utilization; Chowdhery et al., 2022).

Counted are matrix products and convolutions, a multiplication and an addition each, of
the loss and its gradient as they are written: what rematerialization computes again is
not counted, and nothing element-wise is. The count walks JAX's own program of the step,
so it holds for any module, and the body of a scan counts as often as it runs.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

# Dense peak in bfloat16 (float16 for V100) per JAX device, by what `device_kind` starts
# with; longer names first. A JAX device is a chip, but one of two cores on TPU v2, v3.
# GPUs: NVIDIA's data sheets, without sparsity (GeForce: with float32 accumulation).
# TPUs: Google Cloud's documentation of each version.
PEAK_FLOPS: dict[str, float] = {
    "NVIDIA GB200": 2500e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA H200": 989e12,
    "NVIDIA GH200": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA A100": 312e12,
    "NVIDIA A10G": 70e12,
    "NVIDIA A10": 125e12,
    "NVIDIA A30": 165e12,
    "NVIDIA A40": 150e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L4": 121e12,
    "NVIDIA GeForce RTX 4090": 165e12,
    "NVIDIA GeForce RTX 3090": 71e12,
    "NVIDIA RTX A6000": 155e12,
    "Tesla V100": 125e12,
    "TPU v2": 22.5e12,
    "TPU v3": 61.5e12,
    "TPU v4 lite": 138e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1154e12,  # half a chip: its two dies are two devices
}


def peak_flops(device_kind: str, override: float = 0.0) -> float | None:
    """Operations per second that a device could do at most; None where unknown.

    Args:
        device_kind: as JAX names it.
        override: what to take instead, unless 0; `train.peak_flops`.
    """
    if override:
        return override
    names = sorted(PEAK_FLOPS, key=len, reverse=True)
    return next((PEAK_FLOPS[n] for n in names if device_kind.startswith(n)), None)


def count_flops(function: Callable, *args: Any) -> int:
    """Operations of all matrix products and convolutions of `function(*args)`.

    Args:
        function: anything that JAX can trace.
        args: arrays or their shapes.

    Raises:
        ValueError: a `while` loop whose length only the data says, around a product.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def as_written(model: Any) -> Any:
    """The model without `remat` and fused kernels, whose program can be counted."""
    if isinstance(model, nn.Module):
        fields = {
            field.name: as_written(getattr(model, field.name))
            for field in dataclasses.fields(model)
            if field.name not in ("parent", "name")
        }
        plain = dict(remat="none", attention_kernel="plain")
        fields |= {name: plain[name] for name in plain if name in fields}
        return type(model)(**fields)
    if isinstance(model, Mapping):
        return {key: as_written(value) for key, value in model.items()}
    if isinstance(model, tuple):
        parts = [as_written(value) for value in model]
        return type(model)(*parts) if hasattr(model, "_fields") else tuple(parts)
    return model


def _count(jaxpr: Jaxpr) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _count_product(equation)
    if name == "conv_general_dilated":
        return _count_convolution(equation)
    if name == "scan":
        return params["length"] * _count(params["jaxpr"].jaxpr)
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in params["branches"])
    inner = sum(
        _count(value.jaxpr if isinstance(value, ClosedJaxpr) else value)
        for value in _programs(params)
    )
    if name == "while" and inner:
        raise ValueError(
            "FLOPs cannot be counted: a `while` loop around a matrix product runs as "
            "often as the data says. Use `jax.lax.scan` or `fori_loop` with constant "
            "bounds."
        )
    return inner


def _programs(params: Mapping[str, Any]) -> list[Any]:
    """The programs inside of an equation, once each.

    An equation with derivatives of its own holds them as functions, which are no part
    of the program any more.
    """
    found = []
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, Jaxpr | ClosedJaxpr):
                found.append(part)
    return found


def _count_product(equation: Any) -> int:
    left = equation.invars[0].aval.shape
    (contracted, _), _ = equation.params["dimension_numbers"]
    inner = math.prod(left[axis] for axis in contracted)
    return 2 * inner * math.prod(equation.outvars[0].aval.shape)


def _count_convolution(equation: Any) -> int:
    """Products of a convolution; zeros that padding and dilation insert are left out.

    `rhs_spec` names the axes of the kernel: out, in / groups, space.
    """
    image, kernel = (variable.aval.shape for variable in equation.invars)
    out = equation.outvars[0].aval.shape
    params = equation.params
    numbers = params["dimension_numbers"]
    taps = math.prod(
        _taps(
            image[numbers.lhs_spec[2 + axis]],
            kernel[numbers.rhs_spec[2 + axis]],
            out[numbers.out_spec[2 + axis]],
            stride=params["window_strides"][axis],
            before=params["padding"][axis][0],
            image_dilation=params["lhs_dilation"][axis],
            kernel_dilation=params["rhs_dilation"][axis],
        )
        for axis in range(len(image) - 2)
    )
    features = kernel[numbers.rhs_spec[1]]
    rows, columns = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    return 2 * taps * features * rows * columns


def _taps(
    image: int,
    kernel: int,
    out: int,
    *,
    stride: int,
    before: int,
    image_dilation: int,
    kernel_dilation: int,
) -> int:
    """Pairs of an output and a kernel element along one axis that meet a pixel."""
    count = 0
    for position in range(out):
        for tap in range(kernel):
            place = position * stride + tap * kernel_dilation - before
            inside = 0 <= place <= (image - 1) * image_dilation
            count += inside and place % image_dilation == 0
    return count
