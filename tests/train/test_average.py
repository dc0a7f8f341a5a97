"""A phase that goes on from the averaged parameters."""

import re

import chex
import numpy as np
import pytest

from tests.train.test_loop import ANCHOR, REFINE, make_config, run, saved, stop_at

PHASES = (ANCHOR, {**REFINE, "from_average": True})


def test_what_a_phase_freezes_is_what_the_phase_before_has_served(tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    config = make_config(steps=None, phases=PHASES)
    run(straight, config)
    before, after = saved(straight, 3), saved(straight, 6)
    frozen = [n for n in before if n.startswith("params") and "residual" not in n]
    assert len(frozen) == 4
    for name in frozen:
        average = before[f"ema_{name}"]
        assert np.any(before[name] != average)
        np.testing.assert_array_equal(after[name], average)
        np.testing.assert_array_equal(after[f"ema_{name}"], average)
    assert run(stopped, config, on_batch=stop_at(3)) == 3
    run(stopped, config)
    chex.assert_trees_all_equal(saved(stopped, 6), saved(straight, 6))


@pytest.mark.parametrize(
    "phases, decay", [(PHASES, 0.0), (PHASES[::-1], 0.9)], ids=["no decay", "first"]
)
def test_there_must_be_an_average_to_start_from(phases, decay):
    message = "needs a phase before it and train.ema_decay above 0"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_config(steps=None, phases=phases, ema_decay=decay)
