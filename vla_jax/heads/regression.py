"""Regression head: one forward pass from the context to an action chunk."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from vla_jax.heads.base import Metrics, masked_mean
from vla_jax.heads.gripper import decide_gripper, gripper_loss, gripper_mask
from vla_jax.names import did_you_mean
from vla_jax.types import Context

ELEMENT_LOSSES = {
    "l1": jnp.abs,
    "smooth_l1": optax.huber_loss,
    "mse": jnp.square,
}


class RegressionHead(nn.Module):
    """Predicts the chunk: from the mean of the readouts, or by a decoder.

    Attributes:
        chunk: number of actions predicted per call.
        action_dim: size of one action.
        width: hidden units of the perceptron; unused with a decoder.
        element_loss: one of `ELEMENT_LOSSES`; L1 as in ACT (Zhao et al., 2023), where
            it was better than MSE.
        decoder: `(context, train) -> features [b c d]`, one vector per action, from
            which a linear layer reads the action; a two-layer perceptron when None.
        gripper_dims: dimensions that are decisions between open and closed. They are
            trained by cross-entropy; none by default.
        gripper_weight: of that loss; 0.01 as in GR-1 (Wu et al., 2023).
        zero_init: whether the untrained prediction is exactly zero.
    """

    chunk: int
    action_dim: int
    width: int = 256
    element_loss: str = "l1"
    decoder: nn.Module | None = None
    gripper_dims: tuple[int, ...] = ()
    gripper_weight: float = 0.01
    zero_init: bool = False

    @nn.compact
    def __call__(
        self, context: Context, *, train: bool = False
    ) -> Float[Array, "b c a"]:
        """The predicted chunk, normalized; logits where the gripper is a decision."""
        init = (
            nn.initializers.zeros if self.zero_init else nn.linear.default_kernel_init
        )
        if self.decoder is not None:
            x = self.decoder(context, train=train)  # [b c d]
            return nn.Dense(self.action_dim, kernel_init=init, name="action")(x)
        x = nn.LayerNorm(name="norm")(jnp.mean(context.readout, axis=1))
        x = nn.gelu(nn.Dense(self.width, name="hidden")(x))
        x = nn.Dense(self.chunk * self.action_dim, kernel_init=init, name="action")(x)
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
        error, output = self._error(context, action, train=train)
        arm = mask & ~gripper_mask(self.action_dim, self.gripper_dims)
        loss = masked_mean(error, arm)
        first = masked_mean(error[:, :1], arm[:, :1])
        metrics = {self.element_loss: loss, f"{self.element_loss}_first": first}
        if self.gripper_dims:
            gripper, more = gripper_loss(output, action, mask, self.gripper_dims)
            loss, metrics = loss + self.gripper_weight * gripper, {**metrics, **more}
        return loss, metrics

    def predict(
        self, context: Context, rngs: Key[Array, " b"]
    ) -> Float[Array, "b c a"]:
        """The chunk with probabilities of being open in the gripper's dimensions."""
        del rngs  # Regression has nothing to draw.
        output = self(context)
        is_gripper = gripper_mask(self.action_dim, self.gripper_dims)
        return jnp.where(is_gripper, jax.nn.sigmoid(output), output)

    def sample(self, context: Context, rng: Key[Array, ""]) -> Float[Array, "b c a"]:
        """The prediction itself, with the gripper decided."""
        rngs = jax.random.split(rng, context.readout.shape[0])
        return decide_gripper(self.predict(context, rngs), self.gripper_dims)

    def residual_loss(
        self,
        context: Context,
        residual: Float[Array, "b c a"],
        mask: Bool[Array, "b c a"],
        *,
        train: bool,
    ) -> tuple[Float[Array, " b"], Float[Array, "b c a"]]:
        """Fits the arm's part of a residual.

        Returns:
            The loss, and the output, in which the gripper's dimensions are unbounded.
        """
        error, output = self._error(context, residual, train=train)
        arm = mask & ~gripper_mask(self.action_dim, self.gripper_dims)
        return masked_mean(error, arm), output

    def residual(
        self, context: Context, rngs: Key[Array, " b"]
    ) -> Float[Array, "b c a"]:
        """The predicted residual of the arm and of the gripper's probability."""
        del rngs
        return self(context)

    def _error(self, context: Context, target: jax.Array, *, train: bool):
        """The element loss of every entry, and the output."""
        if self.element_loss not in ELEMENT_LOSSES:
            raise ValueError(
                f"Unknown element_loss {self.element_loss!r}; "
                f"{did_you_mean(self.element_loss, ELEMENT_LOSSES)}"
            )
        output = self(context, train=train)
        return ELEMENT_LOSSES[self.element_loss](output - target), output
