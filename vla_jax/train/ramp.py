"""Loss weights that grow during a phase, written in a config as a small dict."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vla_jax.names import check_keys, did_you_mean


class Ramp(NamedTuple):
    """A loss weight that goes from `start` to `stop` over the first `steps` updates.

    Attributes:
        start: weight at the first update of the phase.
        stop: weight from update `steps` on, and in evaluation.
        steps: length in updates.
        shape: "linear", or "s_curve": u - sin(2 pi u) / (2 pi), flat at both ends, the
            one that EIPL (Suzuki et al., 2023) ramps its point losses by.
    """

    start: float
    stop: float
    steps: int
    shape: str = "s_curve"

    def at(self, step: jax.Array) -> jax.Array:
        """The weight of update `step` of the phase."""
        u = jnp.clip(step / max(self.steps, 1), 0.0, 1.0)
        return self.start + (self.stop - self.start) * SHAPES[self.shape](u)


SHAPES = {
    "linear": lambda u: u,
    "s_curve": lambda u: u - jnp.sin(2 * jnp.pi * u) / (2 * jnp.pi),
}

Weights = Mapping[str, float | Ramp]


def read_weights(entries: Mapping[str, Any], num_steps: int, place: str) -> Weights:
    """Reads `loss_weights` of a config.

    Args:
        entries: loss name to a number, or to a dict with `start`, `stop`, `share` (of
            the phase, 0 to 1) and optionally `shape`.
        num_steps: length of the phase in updates.
        place: where they stand in the config, for messages.

    Raises:
        ValueError: an unknown or missing key, shape, or a share outside of 0..1.
    """
    weights: dict[str, float | Ramp] = {}
    for name, entry in entries.items():
        where = f"{place}.{name}"
        if not isinstance(entry, Mapping):
            weights[name] = entry
            continue
        required = ("start", "stop", "share")
        check_keys(entry, (*required, "shape"), where, required=required)
        shape = entry.get("shape", "s_curve")
        if shape not in SHAPES:
            raise ValueError(
                f"Unknown shape {shape!r} in {where}; {did_you_mean(shape, SHAPES)}"
            )
        if not 0 <= entry["share"] <= 1:
            raise ValueError(f"{where}.share is {entry['share']}; expected 0 to 1.")
        steps = round(entry["share"] * num_steps)
        weights[name] = Ramp(entry["start"], entry["stop"], steps, shape)
    return weights


def weights_at(weights: Weights, step: jax.Array | None = None) -> dict[str, Any]:
    """The weights of one update; their final values when `step` is None."""
    return {
        name: weight
        if not isinstance(weight, Ramp)
        else weight.stop
        if step is None
        else weight.at(step)
        for name, weight in weights.items()
    }
