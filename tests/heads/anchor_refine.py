"""Tiny AnchorRefine policies, one for each kind of head, around a single matrix."""

import flax.linen as nn
import jax.numpy as jnp

from tests.fake_batch import make_batch
from vla_jax.heads.diffusion import DiffusionHead
from vla_jax.heads.flow import FlowHead
from vla_jax.heads.hierarchical import HierarchicalHead
from vla_jax.heads.regression import RegressionHead
from vla_jax.models.mlp_denoiser import MLPDenoiser
from vla_jax.models.policy import Policy
from vla_jax.models.time_embedding import SinusoidalTime
from vla_jax.types import Tokens

CHUNK, ACTION, WIDTH = 2, 3, 4
SHARED = dict(chunk=CHUNK, action_dim=ACTION, gripper_dims=(2,))
KINDS = ("regression", "flow", "diffusion")
ANCHOR_FREEZE = ("head/refine", "residual_scale")
REFINE_FREEZE = ("(?!head/(refine|anchor_tokens)|residual_scale).*",)


class Words(nn.Module):
    """One embedding per word."""

    @nn.compact
    def __call__(self, task, *, train):
        return Tokens(nn.Embed(8, WIDTH)(task.tokens), task.token_mask)


class Trunk(nn.Module):
    """One matrix; dropout, which must be off where nothing below is trained."""

    width: int = WIDTH

    @nn.compact
    def __call__(self, context, *, train):
        values = context.groups["proprio"].values[:, 0]
        values = nn.Dropout(0.5, deterministic=not train)(nn.Dense(WIDTH)(values))
        mask = jnp.ones(values.shape[:2], bool)
        return context.replace(tokens=Tokens(values, mask), readout=values)


class Mean(nn.Module):
    """Features of each action from the mean of the tokens."""

    @nn.compact
    def __call__(self, context, *, train):
        mean = jnp.mean(context.tokens.values, 1)
        x = nn.Dense(CHUNK * WIDTH)(jnp.tanh(mean))
        return jnp.tanh(x).reshape(-1, CHUNK, WIDTH)


def part(kind: str, *, refine: bool = False) -> nn.Module:
    """An anchor, or a refinement that starts at zero."""
    if kind == "regression":
        decoder = Mean() if refine else None
        return RegressionHead(width=WIDTH, zero_init=refine, decoder=decoder, **SHARED)
    time = SinusoidalTime(2)
    denoiser = MLPDenoiser(time, width=4, hidden=4, num_blocks=1, zero_init=refine)
    fields = dict(prediction="sample") if refine else {}
    if kind == "flow":
        return FlowHead(denoiser, num_steps=2, **fields, **SHARED)
    fields |= dict(num_timesteps=4, num_steps=4)
    return DiffusionHead(denoiser, clip=5.0, **fields, **SHARED)


def policy(kind: str, **fields) -> Policy:
    """A policy without cameras; generative refinements are scaled."""
    head = HierarchicalHead(
        part(kind),
        part(kind, refine=True),
        **{"scale_residual": kind != "regression", **fields},
    )
    return Policy(image={}, tokens={}, text=Words(), trunk=Trunk(), head=head)


def batch(seed: int = 0, size: int = 3):
    """Actions with a recorded gripper of 0 or 1; the last step is not real."""
    made = make_batch(seed, batch=size, chunk=CHUNK, action_dim=ACTION, cameras=())
    gripper = (made.action[..., -1:] > 0).astype(made.action.dtype)
    return made.replace(action=made.action.at[..., -1:].set(gripper))
