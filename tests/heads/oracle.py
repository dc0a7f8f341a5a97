"""Contexts without a trunk, and denoisers that know the answer."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vla_jax.types import Context, Tokens


def make_context(batch: int = 1, *, readouts: int = 2, tokens: int = 3, width: int = 4):
    """A context of ones, the last token of which is not real."""
    mask = jnp.ones((batch, tokens), bool).at[:, -1].set(False)
    return Context(
        observation=None,
        task=None,
        tokens=Tokens(jnp.ones((batch, tokens, width)), mask),
        readout=jnp.ones((batch, readouts, width)),
    )


class Oracle(nn.Module):
    """A denoiser without parameters: `answer(noisy, time [b 1 1])`."""

    answer: Callable[[Any, Any], Any]

    def prepare(self, context):
        return context.readout

    def __call__(self, noisy, time, prepared, *, train):
        return self.answer(noisy, time[:, None, None])
