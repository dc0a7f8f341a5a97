"""MSACT's points hidden from the trunk in a share of the training examples."""

import functools

import jax
import numpy as np
import pytest

from tests.fake_batch import make_batch
from vla_jax.models.build import build
from vla_jax.types import Context


@pytest.mark.parametrize("train", [False, True])
def test_points_are_dropped_for_whole_examples_and_only_in_training(train):
    maps = dict(
        name="multistage_maps",
        stages=dict(name="level_stages", levels=("fine",)),
        num_points=3,
    )
    module = build(
        dict(
            name="attention_points",
            cameras=("top", "angle"),
            maps=dict(shared=maps),
            width=4,
            future=dict(name="future_points", chunk=2),
            dropout=0.3,
        )
    )
    batch = make_batch(batch=200, window=2, cameras=("top", "angle"))
    observation = batch.observation
    shape = (200, 2, 8, 8, 2)
    rng = np.random.default_rng(0)
    context = Context(
        observation,
        batch.task,
        features={c: {"fine": rng.random(shape, np.float32)} for c in module.cameras},
    )
    run = jax.jit(functools.partial(module.init_with_output, train=train))
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    mask = np.asarray(run(rngs, context)[0].groups["points"].mask)
    real = [observation.image_mask[c] & observation.frame_mask for c in module.cameras]
    real = np.repeat(np.stack(real, -1), 3, -1)
    kept = mask.any((1, 2), keepdims=True)
    np.testing.assert_array_equal(mask, real & kept)
    seen = real.any((1, 2))
    share = kept[seen].mean()
    assert share == 1 if not train else 0.6 < share < 0.8
