"""The style variable of ACT: a conditional VAE whose encoder sees the true actions.

It exists to explain, in training, what differs between demonstrations of the same
thing. At run time it is the mean of its prior, zero.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vla_jax.heads.base import Metrics
from vla_jax.models.post_norm import PostNormEncoder, TorchDense, sine_positions_1d
from vla_jax.types import Tokens


class ActionVAE(nn.Module):
    """Encodes proprio and an action chunk to a latent token (Zhao et al., 2023).

    The sequence is `[CLS | proprio | actions]` with fixed sine positions; padded
    actions are read by nobody. Images are not given to it.

    Attributes:
        width: size of a token, that of the trunk.
        latent_dim: size of the latent.
        beta: weight of the divergence from the prior, beta in the paper.
        num_layers: depth.
        num_heads: attention heads.
        mlp_width: hidden units of each layer's perceptron.
        dropout: rate inside the layers.
        dtype: compute precision.
    """

    width: int = 512
    latent_dim: int = 32
    beta: float = 10.0
    num_layers: int = 4
    num_heads: int = 8
    mlp_width: int = 3200
    dropout: float = 0.1
    dtype: str = "float32"

    def setup(self):
        normal = nn.initializers.normal(1.0)
        self.cls_token = self.param("cls_token", normal, (self.width,))
        self.proprio_project = TorchDense(self.width)
        self.action_project = TorchDense(self.width)
        # Unlike the policy's, these layers keep PyTorch's own initialization.
        self.encoder = PostNormEncoder(
            self.num_layers,
            self.num_heads,
            self.mlp_width,
            self.dropout,
            "torch",
            self.dtype,
        )
        self.moments_project = TorchDense(2 * self.latent_dim)
        self.latent_project = TorchDense(self.width)

    def __call__(
        self,
        proprio: Float[Array, "b p"],
        action: Float[Array, "b c a"],
        mask: Bool[Array, "b c a"],
        *,
        train: bool,
    ) -> tuple[Tokens, Float[Array, " b"], Metrics]:
        """Draws the latent from its posterior.

        Returns:
            The token `[b 1 1 d]`, the weighted divergence, and metrics: `divergence`,
            the sum over the latent without its weight.
        """
        b, c = action.shape[:2]
        action = jnp.where(mask, action, 0.0)
        cls = jnp.broadcast_to(self.cls_token[None, None], (b, 1, self.width))
        x = jnp.concatenate(
            [cls, self.proprio_project(proprio)[:, None], self.action_project(action)],
            axis=1,
        )
        real = jnp.concatenate([jnp.ones((b, 2), bool), mask.any(-1)], 1)
        position = jnp.asarray(sine_positions_1d(2 + c, self.width))[None]
        x = self.encoder(x, position, real, train=train)
        moments = self.moments_project(x[:, 0]).astype(jnp.float32)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        noise = jax.random.normal(self.make_rng("noise"), mean.shape)
        latent = mean + jnp.exp(log_variance / 2) * noise
        divergence = -0.5 * jnp.sum(
            1 + log_variance - mean**2 - jnp.exp(log_variance), axis=-1
        )
        return self._token(latent), self.beta * divergence, {"divergence": divergence}

    def prior(self, batch: int) -> Tokens:
        """The token `[b 1 1 d]` of the prior's mean."""
        return self._token(jnp.zeros((batch, self.latent_dim)))

    def _token(self, latent: Float[Array, "b z"]) -> Tokens:
        values = self.latent_project(latent)[:, None, None]
        return Tokens(values=values, mask=jnp.ones(values.shape[:3], bool))
