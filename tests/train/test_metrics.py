"""Metrics: rows, windows, what a resumed run drops, and the stop at a NaN."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import toy
from vla_jax.train.metrics import MetricsWriter, Recorder, truncate


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def metrics(loss, *, nonfinite=False):
    return {
        "loss": jnp.float32(loss),
        "gradient_norm": jnp.float32(1.0),
        "learning_rate": jnp.float32(loss / 10),
        "nonfinite": jnp.bool_(nonfinite),
    }


def make_recorder(folder, *, log_every=2, step=0):
    writer = MetricsWriter(folder, step=step, config={}, tensorboard=False)
    recorder = Recorder(
        writer,
        step=step,
        num_steps=10,
        log_every=log_every,
        dataset_names=["bridge", "metaworld"],
        last_good=lambda: 40,
    )
    recorder.start_phase("anchor")
    return recorder


def test_a_row_is_the_mean_over_its_window_and_the_last_learning_rate(tmp_path):
    recorder = make_recorder(tmp_path)
    for step in range(1, 6):
        recorder.push(step, metrics(step), toy.make_batch(0), waited=0.0)
    # Steps 4 and 5 are still queued: the newest two are never waited for.
    assert [row["step"] for row in rows(tmp_path)] == [2]
    recorder.drain()
    first, second, rest = rows(tmp_path)
    assert (first["step"], first["loss"], first["phase"]) == (2, 1.5, "anchor")
    assert (second["step"], second["loss"]) == (4, 3.5)
    np.testing.assert_allclose(second["learning_rate"], 0.4)
    assert (rest["step"], rest["loss"]) == (5, 5.0)
    assert first["examples_per_s"] > 0
    np.testing.assert_allclose(first["images_per_s"], first["examples_per_s"])
    assert "nonfinite" not in first


def test_a_loss_that_is_not_finite_names_step_data_sets_and_last_checkpoint(tmp_path):
    recorder = make_recorder(tmp_path, log_every=10)
    recorder.push(1, metrics(1.0), toy.make_batch(0), waited=0.0)
    bad = toy.make_batch(0).replace(dataset=jnp.array([1, 1]))
    recorder.push(2, metrics(np.nan, nonfinite=True), bad, waited=0.0)
    recorder.push(3, metrics(np.nan, nonfinite=True), toy.make_batch(0), waited=0.0)
    message = r"step 2: the loss is nan.*\['metaworld'\].*good checkpoint: step 40"
    with pytest.raises(FloatingPointError, match=message):
        recorder.drain()


def test_a_resumed_run_drops_the_rows_beyond_its_step(tmp_path):
    writer = MetricsWriter(tmp_path, step=0, config={}, tensorboard=False)
    for step in (1, 2, 3):
        writer.write(step, {"loss": float(step), "phase": "train"})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')  # killed in the middle of a line
    writer = MetricsWriter(tmp_path, step=2, config={}, tensorboard=False)
    writer.write(3, {"loss": 30.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]
    assert rows(tmp_path)[0]["phase"] == "train"


def test_truncating_a_file_that_does_not_exist_makes_none(tmp_path):
    truncate(tmp_path / "metrics.jsonl", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_not_finite_stays_valid_json(tmp_path):
    writer = MetricsWriter(tmp_path, step=0, config={}, tensorboard=False)
    writer.write(1, {"loss": float("inf")})
    writer.close()
    assert rows(tmp_path) == [{"step": 1, "loss": None}]


def test_tensorboard_events_are_written_without_importing_torch(tmp_path):
    writer = MetricsWriter(tmp_path, step=0, config={})
    writer.write(3, {"loss": 0.5, "phase": "train"})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()
    assert sys.modules.get("torch", "absent") is not None


def test_wandb_without_its_package_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="pip install wandb"):
        MetricsWriter(tmp_path, step=0, config={}, tensorboard=False, wandb=True)
