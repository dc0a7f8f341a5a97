"""A checkpoint with adapters, merged into one without."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch, policy_config
from vla_jax.models.build import build_model
from vla_jax.train.checkpoint import (
    Checkpointer,
    restore_variables,
    saved_steps,
    write_description,
)
from vla_jax.train.merge import merge_checkpoint
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.step import init_state, init_variables

METADATA = dict(chunk=2, action_dim=3, vocab_size=8)


def test_a_merged_checkpoint_serves_alone_and_plays_the_same(tmp_path):
    batch, root = make_batch(), jax.random.key(0)
    config = {**policy_config(), "lora": dict(rank=2)}
    config["text"]["num_layers"] = 0
    model = build_model(config, METADATA)
    variables = init_variables(model, {}, batch, root)
    rng = np.random.default_rng(0)
    variables["params"]["lora"] = jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape), jnp.float32),
        variables["params"]["lora"],
    )
    optimizer = make_optimizer(variables, 1, learning_rate=0.1)
    run, out = tmp_path / "run", tmp_path / "merged"
    write_description(
        run / "checkpoints",
        config=dict(model=config),
        metadata=METADATA,
        tokenizer=b"text",
    )
    with Checkpointer(run / "checkpoints") as checkpoints:
        checkpoints.save(3, init_state(optimizer, variables, ema=False), {})

    assert merge_checkpoint(run, out) == 3
    assert saved_steps(out / "checkpoints") == [3]
    assert (out / "checkpoints/tokenizer.model").read_bytes() == b"text"
    stored = json.loads((out / "checkpoints/config.json").read_text())
    assert "lora" not in stored["model"]
    plain = build_model(stored["model"], METADATA)
    merged = restore_variables(out)
    inputs = (batch.observation, batch.task, root)
    np.testing.assert_allclose(
        plain.apply(merged, *inputs, method="sample"),
        model.apply(variables, *inputs, method="sample"),
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="exists already; choose another folder"):
        merge_checkpoint(run, out)
    with pytest.raises(ValueError, match=r"without model.lora: nothing to merge"):
        merge_checkpoint(out, tmp_path / "again")
