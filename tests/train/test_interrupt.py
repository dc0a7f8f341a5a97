"""Signals end a run at the next step, and are given back afterwards."""

import os
import signal

import pytest

from vla_jax.train.interrupt import Interrupt


def test_a_signal_before_the_first_step_stops_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
