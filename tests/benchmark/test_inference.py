"""Times of calls of several policies, in turns, on a clock that the calls move."""

import pytest

from vla_jax.benchmark.inference import measure_inference


def test_the_time_of_a_policy_is_a_share_of_that_of_the_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def policy(seconds):
        def call():
            now[0] += seconds

        return {"live_batch1": (1, call)}

    policies = {"fast": policy(0.5), "slow": policy(1.25)}
    rows = measure_inference(policies, num_calls=4)
    found = {row.name: row for row in rows}
    ratio = found["inference/slow/live_batch1_ratio"]
    assert (ratio.low, ratio.value, ratio.high, ratio.turns) == (2.5, 2.5, 2.5, 4)
    assert found["inference/fast/live_batch1_p50_ms"].value == 500
    assert found["inference/slow/live_batch1_per_s"].value == 0.8
    assert "inference/fast/live_batch1_ratio" not in found
    with pytest.raises(ValueError, match="num_batches is 0"):
        measure_inference(policies, num_calls=0)
