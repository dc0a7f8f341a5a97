"""The gripper as a decision: logits, a threshold, and a correction at the boundary.

A head with `gripper_dims` treats those dimensions of the action as open (1) or closed
(0). They must be the ones that the data set calls "gripper", which are never
normalized. Arrays keep all `a` dimensions; a mask tells the gripper from the arm.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from vla_jax.heads.base import Metrics, masked_mean

BOUNDARY = 0.5  # probability of being open above which the gripper opens


def gripper_mask(action_dim: int, dims: tuple[int, ...]) -> np.ndarray:
    """Which dimensions are grippers, bool `[1 1 a]`; negative ones count from the end.

    Raises:
        ValueError: a dimension that the action does not have.
    """
    mask = np.zeros((1, 1, action_dim), bool)
    for dim in dims:
        if not -action_dim <= dim < action_dim:
            raise ValueError(
                f"gripper_dims has {dim}, but an action has {action_dim} dimensions."
            )
        mask[..., dim] = True
    return mask


def decide(probability: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """1 (open) above the boundary, else 0."""
    return (probability > BOUNDARY).astype(jnp.float32)


def decide_gripper(
    chunk: Float[Array, "b c a"], dims: tuple[int, ...]
) -> Float[Array, "b c a"]:
    """Turns probabilities in the gripper's dimensions into decisions."""
    return jnp.where(gripper_mask(chunk.shape[-1], dims), decide(chunk), chunk)


def gripper_loss(
    logit: Float[Array, "b c a"],
    action: Float[Array, "b c a"],
    mask: Bool[Array, "b c a"],
    dims: tuple[int, ...],
) -> tuple[Float[Array, " b"], Metrics]:
    """Binary cross-entropy of the gripper's dimensions.

    Returns:
        The mean over real gripper entries, and as metrics that mean and the share of
        decisions that are wrong.
    """
    mask = mask & gripper_mask(action.shape[-1], dims)
    target = decide(action)
    loss = masked_mean(optax.sigmoid_binary_cross_entropy(logit, target), mask)
    wrong = decide(jax.nn.sigmoid(logit)) != target
    wrong = masked_mean(wrong.astype(jnp.float32), mask)
    return loss, {"gripper_bce": loss, "gripper_error": wrong}


def boundary_target(
    probability: Float[Array, "*any"], gripper: Float[Array, "*any"], eps: float
) -> Float[Array, "*any"]:
    """The smallest correction that decides right, plus a margin.

    AnchorRefine, eqs. 8 to 11:
    `r = s (|q - 1/2| + eps)` with `s` = 0 where the anchor's `q` already decides right,
    +1 where it must be raised over the boundary and -1 where it must be lowered, so
    that a corrected `q + r` lies `eps` beyond the boundary.
    """
    direction = decide(gripper) - decide(probability)
    return direction * (jnp.abs(probability - BOUNDARY) + eps)


def difference_target(
    probability: Float[Array, "*any"], gripper: Float[Array, "*any"], eps: float
) -> Float[Array, "*any"]:
    """What is missing to the recorded 0 or 1: the naive target of the ablation."""
    del eps
    return decide(gripper) - probability


GRIPPER_TARGETS: dict[str, Callable] = {
    "boundary": boundary_target,
    "difference": difference_target,
}
