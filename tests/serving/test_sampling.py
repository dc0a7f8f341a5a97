"""A generative head is sampled in another way without being trained anew."""

import pytest

from configs import anchorrefine
from vla_jax.models.build import build
from vla_jax.serving.sampling import change_sampling, parse_sampling


def _model():
    return anchorrefine.get_config("flow,debug").to_dict()["model"]


def test_changes_are_read_from_text():
    text = "num_steps=4+anchor.integrator=midpoint+clip=null"
    assert parse_sampling(text) == {
        "num_steps": 4,
        "anchor.integrator": "midpoint",
        "clip": None,
    }
    assert parse_sampling("") == {}
    with pytest.raises(ValueError, match="'num_steps' is not of the form num_steps=4"):
        parse_sampling("num_steps")


def test_one_part_of_a_head_is_sampled_in_fewer_steps():
    config = _model()
    changes = {"anchor.num_steps": 3, "anchor.integrator": "midpoint"}
    head = build(change_sampling(config, changes)).head
    assert (head.anchor.num_steps, head.anchor.integrator) == (3, "midpoint")
    assert (head.refine.num_steps, head.refine.integrator) == (1, "euler")
    assert config["head"]["anchor"]["num_steps"] == 10  # the config is as it was


def test_an_anchor_plays_as_a_plain_policy_that_draws():
    changes = parse_sampling("anchor_seed=null")
    assert build(_model()).head.anchor_seed == 0
    assert build(change_sampling(_model(), changes)).head.anchor_seed is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("anchor.numsteps", "'anchor.numsteps'; did you mean 'num_steps'"),
        ("anchor.chunk", "Sampling does not depend on 'anchor.chunk'"),
        ("ancor.num_steps", r"'hierarchical' head has no part 'ancor'; it has \['anch"),
    ],
)
def test_what_is_no_part_of_sampling_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        change_sampling(_model(), {name: 1})


def test_a_head_that_is_not_sampled_refuses_it():
    config = anchorrefine.get_config("regression,debug").to_dict()["model"]
    with pytest.raises(ValueError, match="num_steps"):
        build(change_sampling(config, {"anchor.num_steps": 1}))
