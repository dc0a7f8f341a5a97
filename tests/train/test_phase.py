"""Entering a phase: weights of another run, adapters, and the operations of a step."""

import json

import jax
import numpy as np
import pytest

from tests.train import toy
from tests.train.test_loop import make_config, make_feed
from vla_jax.models.lora import Lora, LoraModel
from vla_jax.train.checkpoint import restore_variables
from vla_jax.train.interrupt import Interrupt
from vla_jax.train.loop import fit
from vla_jax.train.sharding import make_mesh


def run(folder, config, model=None):
    mesh = make_mesh(config["train"]["mesh"])
    with Interrupt() as interrupt:
        return fit(
            config,
            folder,
            model=model or toy.Toy(),
            augment=toy.no_augment,
            feed=make_feed(mesh, toy.make_batch, {"statistics": 1}),
            mesh=mesh,
            interrupt=interrupt,
        )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("base")
    assert run(folder, make_config(steps=2)) == 2
    return folder


def test_a_run_starts_from_the_weights_of_another(base, tmp_path, capsys):
    # A rate so small that float32 does not see the step.
    config = make_config(
        steps=1,
        seed=5,
        learning_rate=1e-12,
        initial_checkpoint=str(base),
        initial_exclude=["residual"],
    )
    run(tmp_path, config)
    found, source = restore_variables(tmp_path), restore_variables(base)
    for name in ("trunk", "anchor"):
        for leaf in ("kernel", "bias"):
            expected = source["params"][name][leaf]
            np.testing.assert_allclose(found["params"][name][leaf], expected, atol=1e-7)
    residual = found["params"]["residual"]["kernel"]
    assert np.abs(residual - source["params"]["residual"]["kernel"]).max() > 0.1
    text = capsys.readouterr().out
    assert f"weights of {base}:\n  5 loaded: anchor/bias, anchor/kernel" in text
    assert "2 kept as drawn, as the patterns say: residual/bias" in text
    # Going on does not load them again.
    config["train"]["steps"] = 2
    assert run(tmp_path, config) == 2
    assert "weights of" not in capsys.readouterr().out


def test_adapters_train_on_a_base_that_keeps_every_bit(base, tmp_path, capsys):
    lora = LoraModel(toy.Toy(), Lora(rank=1, targets=(".*/kernel",), train=("anchor",)))
    config = make_config(
        steps=2, initial_checkpoint=str(base), initial_ema=False, ema_decay=0.0
    )
    assert run(tmp_path, config, lora) == 2
    found = restore_variables(tmp_path)["params"]
    source = restore_variables(base, ema=False)["params"]
    for name in ("trunk", "residual"):
        jax.tree.map(np.testing.assert_array_equal, found[name], source[name])
        assert np.any(found["lora"][name]["kernel"]["b"])
    assert np.any(found["anchor"]["kernel"] != source["anchor"]["kernel"])
    assert "68 of them frozen" in capsys.readouterr().out  # 3*8+8 and 8*4+4


def test_the_share_of_the_peak_is_written(tmp_path, capsys):
    run(tmp_path, make_config(steps=2, peak_flops=1e6))
    # Forward 3*8 + 8*4 + 8*4; backward as much for the weights, and 8*4 each for the
    # features that the two heads read: 240 products and sums for each row of 4.
    text = capsys.readouterr().out
    assert "1.92e-06 GFLOP per step; MFU is of 1e-06 TFLOP/s for each cpu" in text
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(row)["mfu"] > 0 for row in rows)


def test_no_share_is_written_where_the_peak_is_unknown(base):
    rows = (base / "metrics.jsonl").read_text().splitlines()
    assert rows and not any("mfu" in json.loads(row) for row in rows)
