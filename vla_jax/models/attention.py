"""Multi-head attention, and the implementations it can be computed by."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vla_jax.names import did_you_mean

# plain: einsum, softmax, einsum. xla: `jax.nn.dot_product_attention`, the same numbers
# up to rounding. cudnn: its fused kernel for NVIDIA GPUs, which never writes the scores
# to memory.
IMPLEMENTATIONS = ("plain", "xla", "cudnn")
_CUDNN_DTYPES = ("bfloat16", "float16")


class Attention(nn.Module):
    """Multi-head attention with a float32 softmax.

    A reader that may read nothing gets zeros, not the average of everything.

    Attributes:
        num_heads: heads; the width must be a multiple of it.
        dtype: compute precision of the projections.
        implementation: one of `IMPLEMENTATIONS`.
    """

    num_heads: int
    dtype: str = "float32"
    implementation: str = "plain"

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q d"],
        memory: Float[Array, "b n e"],
        mask: Bool[Array, "#b #q n"],
    ) -> Float[Array, "b q d"]:
        width = query.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"width {width} is not a multiple of {self.num_heads}.")
        shape = (self.num_heads, width // self.num_heads)

        def project(name, x):
            return nn.DenseGeneral(shape, dtype=self.dtype, name=name)(x)

        q, k, v = project("q", query), project("k", memory), project("v", memory)
        out = attend(q, k, v, mask, implementation=self.implementation)
        return nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, name="out")(out)


def attend(
    q: Float[Array, "b q h e"],
    k: Float[Array, "b n h e"],
    v: Float[Array, "b n h e"],
    mask: Bool[Array, "#b #q n"],
    *,
    implementation: str = "plain",
) -> Float[Array, "b q h e"]:
    """Softmax attention per head; zeros for a reader whose row of `mask` is empty.

    Raises:
        ValueError: an unknown implementation, or one that this platform or precision
            does not have.
    """
    readable = mask.any(-1)
    if implementation == "plain":
        scores = jnp.einsum("bqhe,bnhe->bhqn", q, k) / np.sqrt(q.shape[-1])
        scores = jnp.where(mask[:, None], scores.astype(jnp.float32), -1e30)
        weights = jax.nn.softmax(scores)
        weights = jnp.where(readable[:, None, :, None], weights, 0.0)
        return jnp.einsum("bhqn,bnhe->bqhe", weights.astype(v.dtype), v)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"Unknown attention {implementation!r}; "
            f"{did_you_mean(implementation, IMPLEMENTATIONS)}"
        )
    if implementation == "cudnn":
        require_cudnn(q.dtype.name)
    out = jax.nn.dot_product_attention(
        q, k, v, mask=mask[:, None], implementation=implementation
    )
    return jnp.where(readable[..., None, None], out, 0)


def require_cudnn(dtype: str) -> None:
    """Refuses cuDNN's attention where it does not exist.

    Raises:
        ValueError: no NVIDIA GPU, or a precision that the kernel does not compute in.
    """
    platform = jax.default_backend()
    if platform not in ("gpu", "cuda"):
        raise ValueError(
            f"attention 'cudnn' needs an NVIDIA GPU, and this process computes on "
            f"{platform!r}; choose 'plain' or 'xla'."
        )
    if dtype not in _CUDNN_DTYPES:
        raise ValueError(
            f"attention 'cudnn' computes in {list(_CUDNN_DTYPES)}, not in {dtype}; set "
            "model.compute.dtype to 'bfloat16', or choose 'plain' or 'xla'."
        )
