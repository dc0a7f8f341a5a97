"""Mixtures by name find their data sets, or say what is missing."""

import re

import numpy as np
import pytest

from tests import fake
from tests.fake_oxe import counting, in_one, numbers, write
from vla_jax.data.mixtures import ALIASES, MIXTURES, expand_mixtures
from vla_jax.data.sampler import sample
from vla_jax.data.source import open_source
from vla_jax.data.standardize import DATASETS
from vla_jax.data.write import Image

LIBERO = "libero_4_task_suites_no_noops"
SUITES = [f"libero_{suite}_no_noops" for suite in ("spatial", "object", "goal", "10")]


@pytest.fixture
def suites(tmp_path):
    """The four LIBERO suites with 2, 4, 6 and 8 steps."""
    observation = {
        "image": Image(8, 8),
        "joint_state": numbers(7),
        "state": numbers(8),
        "wrist_image": Image(8, 8),
    }
    for number, name in enumerate(SUITES):
        steps = {
            "action": counting(2 * number + 2, 7) % 2,
            "language_instruction": ["go"] * (2 * number + 2),
        }
        write(tmp_path, name, in_one(7, observation, embedding=False), steps)
    return tmp_path


def test_a_mixture_stands_for_its_data_sets(tmp_path):
    for name in ("bridge_dataset", "fractal20220817_data", "else"):
        (tmp_path / name).mkdir()
    entry = {"mixture": "bridge_rt_1", "data_dir": str(tmp_path), "weight": 0.5}
    own = {"path": "/data/mine", "spec": "mine.py:MINE"}
    assert expand_mixtures((own, entry)) == (
        own,
        {
            "path": f"{tmp_path}/bridge_dataset",
            "spec": "bridge_dataset",
            "weight": 0.5,
            "per_step": True,
        },
        {
            "path": f"{tmp_path}/fractal20220817_data",
            "spec": "fractal20220817_data",
            "weight": 0.5,
            "per_step": True,
        },
    )


def test_what_is_missing_on_disk_is_named_with_what_is_there(tmp_path):
    (tmp_path / "fractal20220817_data").mkdir()
    (tmp_path / ".unfinished").mkdir()
    entry = {"mixture": "bridge_rt_1", "data_dir": str(tmp_path)}
    message = (
        "lacks 1 of the 2 data sets of mixture 'bridge_rt_1': ['bridge_orig']. It "
        "holds ['fractal20220817_data']. Download what is missing, or leave it out: "
        "without=('bridge_orig',)."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        expand_mixtures((entry,))
    (rest,) = expand_mixtures(({**entry, "without": ("bridge_orig",)},))
    assert rest["spec"] == "fractal20220817_data"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"mixture": "oxe_magic_sop"},
            r"data.datasets\[0\]; did you mean .*magic_soup",
        ),
        ({"data_dir": "/nowhere/at/all"}, "no folder /nowhere/at/all"),
        ({"without": ("bridge",)}, "'bridge', which is not in 'bridge'; did you mean"),
        ({"data_dir": None}, r"data.datasets\[0\] lacks \['data_dir'\]"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    entry = {"mixture": "bridge", "data_dir": str(tmp_path)} | change
    entry = {key: value for key, value in entry.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        expand_mixtures((entry,))


def test_published_weights_multiply_sizes(suites):
    datasets = ({"mixture": LIBERO, "data_dir": str(suites)},)
    source = open_source(fake.data_config(datasets=datasets))
    assert [index.spec.name for index in source.indexes] == SUITES
    assert source.sizes("train") == (2, 4, 6, 8)
    assert source.weights == (2, 4, 6, 8)
    # So every step is drawn as often as any other.
    sizes = source.sizes("train")
    dataset, _ = sample(0, seed=0, batch_size=2000, sizes=sizes, weights=source.weights)
    np.testing.assert_allclose(np.bincount(dataset), [200, 400, 600, 800], atol=2)


def test_a_weight_of_ones_own_can_multiply_the_size_too(suites):
    path, spec = str(suites / SUITES[1]), SUITES[1]
    datasets = (
        {"path": path, "spec": spec, "weight": 3.0},
        {"path": path, "spec": spec, "weight": 3.0, "per_step": True},
    )
    source = open_source(fake.data_config(datasets=datasets))
    assert source.weights == (3, 12)


def test_unknown_keys_of_a_mixture_are_refused(suites):
    datasets = ({"mixture": LIBERO, "data_dir": str(suites), "wieght": 2},)
    with pytest.raises(ValueError, match=r"Unknown key 'wieght' .* did you mean"):
        open_source(fake.data_config(datasets=datasets))


def test_every_member_has_an_entry():
    for name, members in MIXTURES.items():
        names = [member for member, _ in members]
        assert len(set(names)) == len(names), name
        assert set(names) <= set(DATASETS), name
        assert all(weight > 0 for _, weight in members)
    for name, others in ALIASES.items():
        assert {name, *others} <= set(DATASETS)


def test_the_soups_are_the_published_ones():
    count = {name: len(members) for name, members in MIXTURES.items()}
    assert count == {
        "bridge": 1,
        "bridge_rt_1": 2,
        "rtx": 11,
        "rtx_franka": 25,
        "oxe_magic_soup": 25,
        "oxe_magic_soup_plus": 27,
        "oxe_magic_soup_plus_minus": 25,
        "oxe_flex_act_soup": 32,
        "libero_4_task_suites_no_noops": 4,
    }
    soup = dict(MIXTURES["oxe_magic_soup"])
    assert soup["fractal20220817_data"] == 0.54087122203
    assert soup["kuka"] == 0.8341046294
    assert soup["language_table"] == 0.1 and soup["bc_z"] == 0.2
    assert dict(MIXTURES["oxe_magic_soup_plus"])["droid"] == 0.06
    assert dict(MIXTURES["oxe_magic_soup_plus_minus"])["fractal20220817_data"] == 1
    assert dict(MIXTURES["rtx"])["berkeley_cable_routing"] == 3
