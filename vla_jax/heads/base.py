"""What every action head shares: its interface and the one masking helper."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from vla_jax.types import Context

Metrics = dict[str, jax.Array]  # [b] or scalar


class Head(Protocol):
    """An action head. Heads nest: a wrapper holds other heads and delegates to them.

    A head with several losses that phases weigh apart also has
    `losses(context, action, mask, train) -> {name: (loss [b], metrics)}`, which the
    policy then takes instead of `loss`; `loss_names`; and `detached`, those of them
    that send no gradient into the context.
    """

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


class Denoiser(Protocol):
    """The network of a diffusion or flow head."""

    def prepare(self, context: Context) -> Any:
        """What each step reads of the context; called once per sampled chunk."""
        ...

    def __call__(
        self,
        noisy: Float[Array, "b c a"],
        time: Float[Array, " b"],
        prepared: Any,
        *,
        train: bool,
    ) -> Float[Array, "b c a"]:
        """The prediction; `time` is a flow time in 0..1 or a diffusion timestep."""
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


def draw_noise(
    rngs: Key[Array, " b"], chunk: int, action_dim: int
) -> Float[Array, "b c a"]:
    """Standard normal chunks, each row from a key of its own.

    So the draw of an example depends on neither the batch nor its place in it.
    """
    return jax.vmap(lambda rng: jax.random.normal(rng, (chunk, action_dim)))(rngs)
