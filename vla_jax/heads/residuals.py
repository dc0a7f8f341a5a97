"""What a refinement has to do and what it does, in numbers."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vla_jax.heads.base import Metrics, masked_mean
from vla_jax.heads.gripper import decide


def chunk_norm(
    chunk: Float[Array, "b c a"], mask: Bool[Array, "b c a"]
) -> Float[Array, " b"]:
    """Euclidean norm of each chunk over its real entries."""
    return jnp.sqrt(jnp.sum(jnp.where(mask, jnp.square(chunk), 0.0), (1, 2)))


def covariance_trace(
    chunk: Float[Array, "b c a"], mask: Bool[Array, "b c a"]
) -> Float[Array, ""]:
    """Trace of the covariance of the chunks of a batch, without bias.

    So its mean over batches is an estimate for the data set. An entry counts where at
    least two chunks of the batch have it.
    """
    count = jnp.sum(mask, 0)  # [c a]
    mean = jnp.sum(jnp.where(mask, chunk, 0.0), 0) / jnp.maximum(count, 1)
    square = jnp.sum(jnp.where(mask, jnp.square(chunk - mean[None]), 0.0), 0)
    return jnp.sum(jnp.where(count > 1, square / jnp.maximum(count - 1, 1), 0.0))


def size_metrics(
    name: str, chunk: Float[Array, "b c a"], mask: Bool[Array, "b c a"]
) -> Metrics:
    """`<name>_norm` and `<name>_trace`, the two sizes that AnchorRefine reports."""
    return {
        f"{name}_norm": chunk_norm(chunk, mask),
        f"{name}_trace": covariance_trace(chunk, mask),
    }


def flip_metrics(
    anchor: Float[Array, "b c a"],
    final: Float[Array, "b c a"],
    action: Float[Array, "b c a"],
    mask: Bool[Array, "b c a"],
) -> Metrics:
    """How often a correction moves the gripper's decision, and which way.

    Args:
        anchor: probabilities of being open before the correction.
        final: after it, not bounded to 0..1.
        action: what was recorded.
        mask: the real gripper entries.

    Returns:
        Flips per chunk in both directions, and the share of wrong decisions before and
        after.
    """
    right = decide(action)
    before, after = decide(anchor) == right, decide(final) == right

    def per_chunk(flips):
        return jnp.sum(mask & flips, (1, 2)).astype(jnp.float32)

    def share(wrong):
        return masked_mean(wrong.astype(jnp.float32), mask)

    return {
        "gripper_wrong_to_right": per_chunk(~before & after),
        "gripper_right_to_wrong": per_chunk(before & ~after),
        "anchor_gripper_error": share(~before),
        "gripper_error": share(~after),
    }
