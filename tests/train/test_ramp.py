"""Loss weights that grow during a phase."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.test_config import config
from vla_jax.train.config import make_phases
from vla_jax.train.ramp import Ramp, read_weights, weights_at

ENTRY = dict(start=1e-4, stop=0.1, share=0.25)


def test_the_s_curve_starts_and_ends_flat_and_is_half_way_in_the_middle():
    ramp = Ramp(1.0, 3.0, 100)
    values = [float(ramp.at(jnp.array(step))) for step in (0, 50, 100, 500)]
    np.testing.assert_allclose(values, [1, 2, 3, 3], atol=1e-6)
    first, middle = (
        float(ramp.at(jnp.array(s + 1)) - ramp.at(jnp.array(s))) for s in (0, 50)
    )
    assert first < 0.01 * middle
    quarter = 1 + 2 * (0.25 - 1 / (2 * np.pi))
    np.testing.assert_allclose(ramp.at(jnp.array(25)), quarter, rtol=1e-6)


def test_a_share_is_of_the_phase_and_numbers_stay():
    weights = read_weights(dict(align=ENTRY, action=2.0), 400, "loss_weights")
    assert weights == dict(align=Ramp(1e-4, 0.1, 100), action=2.0)
    assert weights_at(weights) == dict(align=0.1, action=2.0)
    assert abs(float(weights_at(weights, jnp.array(0))["align"]) - 1e-4) < 1e-9


def test_a_phase_takes_the_weights_of_the_run_unless_it_has_its_own():
    phases = [
        dict(name="a", steps=4, loss_weights=dict(action=0.0)),
        dict(name="b", steps=8),
    ]
    train = config(phases=phases, loss_weights=dict(align=ENTRY, action=3.0))["train"]
    a, b = make_phases({**train, "steps": None})
    assert a.loss_weights == dict(align=Ramp(1e-4, 0.1, 1), action=0.0)
    assert b.loss_weights == dict(align=Ramp(1e-4, 0.1, 2), action=3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(shape="cosine"), r"Unknown shape 'cosine' in here\.align"),
        (dict(share=2), r"here\.align\.share is 2; expected 0 to 1"),
        (dict(shar=1), r"Unknown key 'shar' in here\.align; did you mean 'share'"),
    ],
)
def test_a_wrong_ramp_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        read_weights(dict(align={**ENTRY, **change}), 10, "here")
