"""What heads that make actions from noise share; see `flow.py` and `diffusion.py`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from vla_jax.heads.base import Metrics, draw_noise
from vla_jax.heads.gripper import decide_gripper, gripper_loss, gripper_mask
from vla_jax.types import Context


class GenerativeHead(nn.Module):
    """A head around a denoiser; what noise is and how it is undone, a subclass says.

    It gives two methods: `_denoising(context, action, mask, train) -> (loss [b], output
    [b c a])`, and `_generate(context, rngs) -> (chunk, output of the last pass)`, and
    `_noisy_end`, the denoiser's time at which nothing is known of the action.

    Dimensions in `gripper_dims` take no part: the denoiser sees zeros there and answers
    with logits, as in X-VLA.

    Attributes:
        denoiser: network `(noisy, time, prepared context) -> prediction`.
        chunk: number of actions predicted per call.
        action_dim: size of one action.
        gripper_dims: dimensions that are decisions between open and closed.
        gripper_weight: of their cross-entropy.
        temperature: standard deviation of the noise that a sample is made from; 0 makes
            the chunk a function of the context alone. Training does not depend on it.
    """

    denoiser: nn.Module
    chunk: int
    action_dim: int
    gripper_dims: tuple[int, ...] = ()
    gripper_weight: float = 1.0
    temperature: float = 1.0

    def loss(
        self,
        context: Context,
        action: Float[Array, "b c a"],
        mask: Bool[Array, "b c a"],
        *,
        train: bool,
    ) -> tuple[Float[Array, " b"], Metrics]:
        """Mean square of what the denoiser gets wrong at a random noise level."""
        loss, output = self._denoising(context, action, mask, train=train)
        metrics = {f"{self.prediction}_mse": loss}
        if self.gripper_dims:
            gripper, more = gripper_loss(output, action, mask, self.gripper_dims)
            loss, metrics = loss + self.gripper_weight * gripper, {**metrics, **more}
        return loss, metrics

    def predict(
        self, context: Context, rngs: Key[Array, " b"]
    ) -> Float[Array, "b c a"]:
        """A chunk with probabilities of being open in the gripper's dimensions.

        Args:
            context: what the trunk made of the inputs.
            rngs: a key for each example; all that its draw depends on.
        """
        chunk, output = self._generate(context, rngs)
        return jnp.where(self._is_gripper, jax.nn.sigmoid(output), chunk)

    def sample(self, context: Context, rng: Key[Array, ""]) -> Float[Array, "b c a"]:
        """A chunk of normalized actions, with the gripper decided."""
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
            The loss, and an output for the gripper's dimensions, into which nothing
            drawn enters.
        """
        loss, _ = self._denoising(context, residual, mask, train=train)
        return loss, self._at_rest(context, train=train)

    def residual(
        self, context: Context, rngs: Key[Array, " b"]
    ) -> Float[Array, "b c a"]:
        """A draw of the arm's residual, and the correction of the gripper."""
        chunk, _ = self._generate(context, rngs)
        if not self.gripper_dims:
            return chunk
        return jnp.where(self._is_gripper, self._at_rest(context, train=False), chunk)

    @property
    def _is_gripper(self) -> np.ndarray:
        return gripper_mask(self.action_dim, self.gripper_dims)

    def _draw(self, rngs: jax.Array) -> jax.Array:
        """Noise `[b c a]` of the head's temperature, from a key for each example."""
        if not 0 <= self.temperature <= 1:
            raise ValueError(f"temperature is {self.temperature}; expected 0 to 1.")
        return self.temperature * draw_noise(rngs, self.chunk, self.action_dim)

    def _at_rest(self, context: Context, *, train: bool) -> jax.Array:
        """The output for an empty chunk at the noisy end."""
        empty = jnp.zeros((context.readout.shape[0], self.chunk, self.action_dim))
        time = jnp.full(empty.shape[:1], self._noisy_end, jnp.float32)
        return self._network(empty, time, self.denoiser.prepare(context), train=train)

    def _network(
        self, noisy: jax.Array, time: jax.Array, prepared: Any, *, train: bool
    ) -> jax.Array:
        noisy = jnp.where(self._is_gripper, 0.0, noisy)
        return self.denoiser(noisy, time, prepared, train=train)
