"""The config of AnchorRefine and its ablations on Meta-World."""

import itertools

import pytest

from configs import anchorrefine
from vla_jax.train.config import make_phases, resolve


@pytest.mark.parametrize(
    ("profile", "ablation"),
    itertools.product(anchorrefine.PROFILES, anchorrefine.ABLATIONS),
)
def test_the_second_phase_alone_is_that_of_both(profile, ablation):
    both = resolve(anchorrefine.get_config(f"{profile},{ablation}"))
    if ablation == "deeper":
        assert len(make_phases(both["train"])) == 1
        with pytest.raises(ValueError, match="no second_phase of 'deeper'"):
            anchorrefine.get_config(f"{profile},{ablation},second_phase")
        return
    alone = resolve(anchorrefine.get_config(f"{profile},{ablation},second_phase"))
    _, second = make_phases(both["train"])
    (phase,) = make_phases(alone["train"])
    assert phase == second._replace(start=0, from_average=False)
    for section in ("seed", "data", "model", "optimizer", "evaluation"):
        assert alone[section] == both[section]
    assert alone["train"]["initial_checkpoint"] == f"runs/ten/{profile}"
    assert alone["train"]["initial_step"] == second.start == 6000
