"""One linear layer from each readout to one action of the chunk: the head of ACT."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vla_jax.heads.base import Metrics, masked_mean
from vla_jax.heads.regression import ELEMENT_LOSSES
from vla_jax.names import did_you_mean
from vla_jax.types import Context


class PerStepHead(nn.Module):
    """Action k of the chunk is a linear map of readout k (Zhao et al., 2023).

    Attributes:
        chunk: number of actions predicted per call; the trunk must have as many
            readouts or more, of which the first are read.
        action_dim: size of one action.
        element_loss: one of `vla_jax.heads.regression.ELEMENT_LOSSES`.
        divide_by: "real" takes the mean over real entries; "all" divides by padded ones
            too, as ACT's code does, so that the ends of episodes weigh less.
    """

    chunk: int
    action_dim: int
    element_loss: str = "l1"
    divide_by: str = "real"

    @nn.compact
    def __call__(self, context: Context) -> Float[Array, "b c a"]:
        """The predicted chunk, normalized."""
        readouts = context.readout.shape[1]
        if readouts < self.chunk:
            raise ValueError(
                f"The trunk has {readouts} readouts for a chunk of {self.chunk}; set "
                "model.trunk.num_readouts to the chunk."
            )
        bound = context.readout.shape[-1] ** -0.5
        return nn.Dense(
            self.action_dim,
            kernel_init=nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            bias_init=lambda rng, shape, dtype: (
                bound * (2 * nn.initializers.uniform(1.0)(rng, shape, dtype) - 1)
            ),
            name="action",
        )(context.readout[:, : self.chunk])

    def loss(
        self,
        context: Context,
        action: Float[Array, "b c a"],
        mask: Bool[Array, "b c a"],
        *,
        train: bool,
    ) -> tuple[Float[Array, " b"], Metrics]:
        """Mean of the element loss; also logs that of the first action."""
        del train
        for value, known in (
            (self.element_loss, ELEMENT_LOSSES),
            (self.divide_by, ("real", "all")),
        ):
            if value not in known:
                raise ValueError(f"Unknown {value!r}; {did_you_mean(value, known)}")
        error = ELEMENT_LOSSES[self.element_loss](self(context) - action)
        mean = masked_mean(error, mask)
        first = masked_mean(error[:, :1], mask[:, :1])
        loss = mean
        if self.divide_by == "all":
            loss = jnp.mean(jnp.where(mask, error, 0.0), axis=(1, 2))
        return loss, {self.element_loss: mean, f"{self.element_loss}_first": first}

    def sample(self, context: Context, rng: Key[Array, ""]) -> Float[Array, "b c a"]:
        """The prediction itself: regression has nothing to draw."""
        del rng
        return self(context)
