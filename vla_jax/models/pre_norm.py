"""Pre-norm transformer layers whose activation and norm follow a published model.

`transformer.Layer` is the layer of models that start here; this one also computes what
weights from elsewhere expect.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vla_jax.models.attention import Attention
from vla_jax.models.transformer import REMAT
from vla_jax.names import did_you_mean

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": nn.gelu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # CLIP's
    "relu": nn.relu,
}


class PreNormLayer(nn.Module):
    """Self-attention, then a two-layer perceptron, each behind a norm of its own.

    Attributes:
        num_heads: attention heads.
        mlp_width: hidden units of the perceptron.
        activation: one of `ACTIVATIONS`.
        epsilon: of the norms.
        dropout: rate on residual branches.
        dtype: compute precision; parameters and softmax stay float32.
        attention_kernel: one of `vla_jax.models.attention.IMPLEMENTATIONS`.
    """

    num_heads: int
    mlp_width: int
    activation: str = "gelu"
    epsilon: float = 1e-6
    dropout: float = 0.0
    dtype: str = "float32"
    attention_kernel: str = "plain"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b #n n"], *, train: bool
    ) -> Float[Array, "b n d"]:
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"Unknown activation {self.activation!r}; "
                f"{did_you_mean(self.activation, ACTIVATIONS)}"
            )
        drop = nn.Dropout(self.dropout, deterministic=not train)

        def norm(name):
            return nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype, name=name)

        def dense(width, name):
            return nn.Dense(width, dtype=self.dtype, name=name)

        y = norm("attention_norm")(x)
        attention = Attention(
            self.num_heads, self.dtype, self.attention_kernel, name="attention"
        )
        x = x + drop(attention(y, y, mask))
        y = dense(self.mlp_width, "mlp_in")(norm("mlp_norm")(x))
        y = dense(x.shape[-1], "mlp_out")(ACTIVATIONS[self.activation](y))
        return x + drop(y)


class PreNormStack(nn.Module):
    """Layers one after the other, without a norm at the end.

    Attributes:
        num_layers: depth.
        num_heads, mlp_width, activation, epsilon, dropout, dtype, attention_kernel: of
            `PreNormLayer`.
        remat: what the backward pass computes again, one of `transformer.REMAT`.
    """

    num_layers: int
    num_heads: int
    mlp_width: int
    activation: str = "gelu"
    epsilon: float = 1e-6
    dropout: float = 0.0
    dtype: str = "float32"
    attention_kernel: str = "plain"
    remat: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "#b #n n"], *, train: bool
    ) -> tuple[Float[Array, "b n d"], ...]:
        """What every layer gave, float32, the last one last; `(x,)` without layers.

        Raises:
            ValueError: an unknown `remat` or activation.
        """
        if self.remat not in REMAT:
            raise ValueError(
                f"Unknown remat {self.remat!r}; {did_you_mean(self.remat, REMAT)}"
            )

        def run(layer, x, mask):
            return layer(x, mask, train=train)

        # Only training has a backward pass; a sampler's loop could not hold the other.
        if train and self.remat != "none":
            run = nn.remat(run, policy=REMAT[self.remat])
        outputs = []
        for index in range(self.num_layers):
            layer = PreNormLayer(
                self.num_heads,
                self.mlp_width,
                self.activation,
                self.epsilon,
                self.dropout,
                self.dtype,
                self.attention_kernel,
                name=f"layer_{index}",
            )
            x = run(layer, x, mask)
            outputs.append(x.astype(jnp.float32))
        return tuple(outputs) or (x,)
