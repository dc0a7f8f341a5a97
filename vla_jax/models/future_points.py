"""Predicting where attention points will be, and how far off that was."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vla_jax.heads.base import Metrics
from vla_jax.models.post_norm import TorchDense
from vla_jax.names import did_you_mean
from vla_jax.types import Context

_COLLAPSED = 0.005  # deviation of a point, in 0..1, below which it does not move
_TOO_NEAR = 0.03  # distance of two points, in 0..1, below which they repel

TARGETS = ("both", "stopped", "average")


class FuturePoints(nn.Module):
    """A linear layer from readout j to the points of step t + j.

    Attributes:
        chunk: number of steps foreseen.
        first_readout: the readout of step t; 0 shares the readouts with the actions,
            the chunk gives the points queries of their own.
        target: "both" lets the loss move the foreseen points and those found in the
            future frames, which pulls the maps to what can be foreseen; "stopped"
            moves only the foreseen ones; "average" also, and finds the others by
            a moving average of the maps.
        decay: of that average.
        coordinates: range in which distances are measured: "unit", 0..1, or "signed",
            -1..1, which doubles them.
        repulsion: weight of a penalty on points nearer than 3 % of the picture.
    """

    chunk: int
    first_readout: int = 0
    target: str = "both"
    decay: float = 0.999
    coordinates: str = "unit"
    repulsion: float = 0.0

    def predict(self, context: Context, num_points: int) -> Float[Array, "b c k 2"]:
        """Points of every step of the chunk, (x, y) in -1..1."""
        return self._predict(context.readout, num_points)

    @nn.compact
    def _predict(
        self, readout: Float[Array, "b r d"], num_points: int
    ) -> Float[Array, "b c k 2"]:
        stop = self.first_readout + self.chunk
        if readout.shape[1] < stop:
            raise ValueError(
                f"The future points read the readouts {self.first_readout} to {stop}, "
                f"but the trunk has {readout.shape[1]}; set model.trunk.num_readouts."
            )
        x = TorchDense(2 * num_points, name="points")(
            readout[:, self.first_readout : stop]
        )
        # 2 sigmoid(x) - 1: a point cannot leave the picture.
        return jnp.tanh(x / 2).reshape(*x.shape[:2], num_points, 2)

    def __call__(
        self,
        context: Context,
        target: Float[Array, "b f k 2"],
        mask: Bool[Array, "b f k"],
        offset: Int[Array, "b f"],
    ) -> tuple[Float[Array, " b"], Metrics]:
        """L1 between foreseen points and `target`, of the steps t + `offset`.

        The mean is over all of them, masked ones too, which count as zero. Offsets
        beyond the chunk are masked.
        """
        for value, known in (
            (self.target, TARGETS),
            (self.coordinates, ("unit", "signed")),
        ):
            if value not in known:
                raise ValueError(f"Unknown {value!r}; {did_you_mean(value, known)}")
        predicted = self.predict(context, target.shape[2])
        step = jnp.minimum(offset, self.chunk - 1)
        predicted = jnp.take_along_axis(predicted, step[..., None, None], axis=1)
        if self.target != "both":
            target = jax.lax.stop_gradient(target)
        mask = mask & (offset < self.chunk)[..., None]
        scale = 0.5 if self.coordinates == "unit" else 1.0
        error = jnp.where(mask[..., None], scale * jnp.abs(predicted - target), 0.0)
        loss = jnp.mean(error, (1, 2, 3))
        real = jnp.maximum(jnp.mean(mask.astype(jnp.float32)), 1e-6)
        return loss, {"l1": jnp.mean(error) / real}


class MovingAverage(nn.Module):
    """A slow copy of parameters, in the collection "average".

    Attributes:
        decay: share of the copy that a step keeps.
    """

    decay: float

    @nn.compact
    def __call__(self, params: Mapping[str, Any], *, train: bool) -> dict[str, Any]:
        """Moves the copy, in training, and returns it without a gradient."""
        params = jax.lax.stop_gradient(params)
        copy = self.variable("average", "params", lambda: params)
        if train and not self.is_initializing():
            copy.value = jax.tree.map(
                lambda old, new: self.decay * old + (1 - self.decay) * new,
                copy.value,
                params,
            )
        return copy.value


def spread_metrics(
    present: Float[Array, "b 1 k 2"],
    target: Float[Array, "b f k 2"],
    mask: Bool[Array, "b f k"],
) -> Metrics:
    """How much each point moves over the batch and over time, to notice a collapse.

    Returns:
        `std/<k>` of every point, in 0..1 of the picture, their mean `std`, and
        `collapsed`, 1 where all of them are below 0.005.
    """
    points = jax.lax.stop_gradient(jnp.concatenate([present, target], 1)) / 2
    mask = jnp.concatenate([jnp.ones_like(mask[:, :1]), mask], 1)[..., None]
    count = jnp.maximum(jnp.sum(mask, (0, 1)), 1)  # [k 1]
    mean = jnp.sum(jnp.where(mask, points, 0.0), (0, 1)) / count
    off = jnp.where(mask, points - mean[None, None], 0.0)
    deviation = jnp.sqrt(jnp.sum(off**2, (0, 1)) / count).mean(-1)  # [k]
    each = {f"std/{k}": deviation[k] for k in range(len(deviation))}
    collapsed = jnp.all(deviation < _COLLAPSED).astype(jnp.float32)
    return {"std": jnp.mean(deviation), "collapsed": collapsed, **each}


def spread_penalty(points: Float[Array, "b k 2"]) -> Float[Array, " b"]:
    """Mean over pairs of how much nearer than 3 % of the picture they are, in 0..1."""
    k = points.shape[1]
    first, second = np.triu_indices(k, 1)
    square = jnp.sum((points[:, first] - points[:, second]) ** 2, -1) / 4
    distance = jnp.sqrt(jnp.maximum(square, 1e-12))  # a finite gradient at 0
    return jnp.sum(jnp.maximum(_TOO_NEAR - distance, 0.0), 1) / max(len(first), 1)
