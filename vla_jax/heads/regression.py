"""Regression head: one forward pass from the readouts to an action chunk."""

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from vla_jax.heads.base import Metrics, masked_mean
from vla_jax.names import did_you_mean
from vla_jax.types import Context

ELEMENT_LOSSES = {
    "l1": jnp.abs,
    "smooth_l1": optax.huber_loss,
    "mse": jnp.square,
}


class RegressionHead(nn.Module):
    """Predicts the chunk from the mean of the readouts by a two-layer perceptron.

    Attributes:
        chunk: number of actions predicted per call.
        action_dim: size of one action.
        width: hidden units.
        element_loss: one of `ELEMENT_LOSSES`; L1 as in ACT (Zhao et al., 2023), where
            it was better than MSE.
    """

    chunk: int
    action_dim: int
    width: int = 256
    element_loss: str = "l1"

    @nn.compact
    def __call__(self, context: Context) -> Float[Array, "b c a"]:
        """The predicted chunk, normalized."""
        x = nn.LayerNorm(name="norm")(jnp.mean(context.readout, axis=1))
        x = nn.gelu(nn.Dense(self.width, name="hidden")(x))
        x = nn.Dense(self.chunk * self.action_dim, name="action")(x)
        return x.reshape(-1, self.chunk, self.action_dim)  # [b c a]

    def loss(
        self,
        context: Context,
        action: Float[Array, "b c a"],
        mask: Bool[Array, "b c a"],
        *,
        train: bool,
    ) -> tuple[Float[Array, " b"], Metrics]:
        """Mean of the element loss over real entries; also logs the first action's."""
        del train
        if self.element_loss not in ELEMENT_LOSSES:
            raise ValueError(
                f"Unknown element_loss {self.element_loss!r}; "
                f"{did_you_mean(self.element_loss, ELEMENT_LOSSES)}"
            )
        error = ELEMENT_LOSSES[self.element_loss](self(context) - action)
        loss = masked_mean(error, mask)
        first = masked_mean(error[:, :1], mask[:, :1])
        return loss, {self.element_loss: loss, f"{self.element_loss}_first": first}

    def sample(self, context: Context, rng: Key[Array, ""]) -> Float[Array, "b c a"]:
        """The prediction itself: regression has nothing to draw."""
        del rng
        return self(context)
