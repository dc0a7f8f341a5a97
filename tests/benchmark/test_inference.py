"""Times of one policy call: in turns, and of configs without data."""

import functools
import time
from pathlib import Path

import numpy as np
import pytest

from vla_jax.benchmark.inference import config_arms, load_config, measure_inference

ROOT = Path(__file__).parents[2]


def test_the_time_of_a_policy_is_a_share_of_that_of_the_first():
    policies = {
        name: {"live_batch1": (1, functools.partial(time.sleep, seconds))}
        for name, seconds in (("fast", 0.002), ("slow", 0.02))
    }
    rows = measure_inference(policies, num_calls=4)
    found = {row.name: row for row in rows}
    ratio = found["inference/slow/live_batch1_ratio"]
    assert 3 < ratio.low <= ratio.value <= ratio.high < 12 and ratio.turns == 4
    assert found["inference/fast/live_batch1_p50_ms"].value >= 2
    assert "inference/fast/live_batch1_ratio" not in found
    with pytest.raises(ValueError, match="num_batches is 0"):
        measure_inference(policies, num_calls=0)


def test_a_config_is_timed_without_data():
    config = load_config(f"{ROOT}/configs/msact.py:debug")
    ((name, (size, call)),) = config_arms(config, (2,)).items()
    assert (name, size) == ("live_batch2", 2)
    assert call().shape == (2, 8, 14) and np.abs(call()).max() > 0
    with pytest.raises(ValueError, match=r"no config file configs/mscat\.py"):
        load_config("configs/mscat.py")
