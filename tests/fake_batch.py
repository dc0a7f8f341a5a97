"""Tiny batches and a tiny policy config for tests of models, heads and serving."""

import jax
import numpy as np

from vla_jax.types import Batch, batch_from_dict

CAMERAS = ("primary", "wrist")


def make_batch(
    seed: int = 0,
    *,
    batch: int = 2,
    window: int = 1,
    chunk: int = 2,
    action_dim: int = 3,
    proprio_dim: int = 4,
    length: int = 3,
    image_size: int = 16,
    cameras: tuple[str, ...] = CAMERAS,
) -> Batch:
    """Random inputs with everything real but the last word and the last action."""
    rng = np.random.default_rng(seed)
    token_mask = np.ones((batch, length), bool)
    token_mask[:, -1] = False
    action_mask = np.ones((batch, chunk, action_dim), bool)
    action_mask[:, -1] = False
    shape = (batch, window, image_size, image_size, 3)
    content = {
        "observation": {
            "image": {c: rng.integers(0, 256, shape, np.uint8) for c in cameras},
            "image_mask": {c: np.ones((batch, window), bool) for c in cameras},
            "proprio": _normal(rng, batch, window, proprio_dim),
            "frame_mask": np.ones((batch, window), bool),
        },
        "task": {
            "tokens": rng.integers(1, 8, (batch, length)).astype(np.int32),
            "token_mask": token_mask,
        },
        "action": _normal(rng, batch, chunk, action_dim),
        "action_mask": action_mask,
    }
    return jax.tree.map(jax.numpy.asarray, batch_from_dict(content))


def policy_config(
    *, tokens: str = "grid", chunk: int = 2, action_dim: int = 3, vocab_size: int = 8
) -> dict:
    """A policy of a few hundred parameters."""
    return dict(
        name="policy",
        image=dict(shared=dict(name="conv", patch=4, widths=(4, 4), strides=(2,))),
        tokens=dict(shared=dict(name=tokens, level="stage1", width=8)),
        text=dict(name="text_transformer", vocab_size=vocab_size, width=8, num_heads=2),
        trunk=dict(name="blockwise", width=8, num_layers=1, num_heads=2, mlp_width=16),
        head=dict(name="regression", chunk=chunk, action_dim=action_dim, width=8),
    )


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)
