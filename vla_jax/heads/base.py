"""What every action head shares: its interface and the one masking helper."""

from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vla_jax.types import Context

Metrics = dict[str, jax.Array]  # [b] or scalar


class Head(Protocol):
    """An action head. Heads nest: a wrapper holds other heads and delegates to them."""

    def loss(
        self,
        context: Context,
        action: Float[Array, "b c a"],
        mask: Bool[Array, "b c a"],
        *,
        train: bool,
    ) -> tuple[Float[Array, " b"], Metrics]:
        """One loss per example; entries where `mask` is False never change it."""
        ...

    def sample(self, context: Context, rng: Key[Array, ""]) -> Float[Array, "b c a"]:
        """A chunk of normalized actions."""
        ...


def masked_mean(
    value: Float[Array, " b *rest"], mask: Bool[Array, " b *rest"]
) -> Float[Array, " b"]:
    """Averages each example over its real entries; 0 where an example has none.

    Masked entries are replaced before the sum, so not even a NaN in them changes the
    value. It would reach the gradient: what is masked must still be finite there.
    """
    axes = tuple(range(1, value.ndim))
    total = jnp.sum(jnp.where(mask, value, 0.0), axes)
    return total / jnp.maximum(jnp.sum(mask, axes), 1)
