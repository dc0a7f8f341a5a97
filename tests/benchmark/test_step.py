"""Time inside and outside of the step is told apart."""

import time

import jax.numpy as jnp

from tests import fake
from tests.train.toy import Toy
from tests.train.train_real import get_config
from vla_jax.benchmark import programs
from vla_jax.benchmark.step import measure_step, time_steps


class Silent:
    def push(self, step, metrics, batch, *, waited):
        pass


def test_waiting_for_batches_counts_as_outside():
    def batches():
        while True:
            time.sleep(0.02)
            yield None

    def update(state, batch):
        time.sleep(0.01)
        return state + 1, {"loss": jnp.zeros(())}

    inside, total = time_steps(update, jnp.zeros(()), batches(), Silent(), 10)
    assert len(inside) == 10
    assert sum(inside) >= 0.1
    assert total - sum(inside) >= 0.2


def test_the_step_of_a_config_is_measured(tmp_path, monkeypatch):
    # A model that compiles in a moment; `build_model` has tests of its own.
    monkeypatch.setattr(programs, "build_model", lambda *_, **__: Toy())
    folder = fake.write_dataset(tmp_path, image_size=16)
    config = get_config(str(folder), 100)
    config["train"].update(tensorboard=False, augment={})
    rows = {row.name: row.value for row in measure_step(config, num_steps=4)}
    assert 0 <= rows["step/outside_ratio"] < 1
    assert rows["step/inside_s"] > 0
    assert rows["step/steps"] == 4
