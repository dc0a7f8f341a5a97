"""Configs: misspelled keys, impossible numbers, and phases."""

import re

import pytest
from ml_collections import ConfigDict

from vla_jax.train.config import make_phases, resolve


def config(**train):
    return dict(
        seed=0,
        data=dict(batch_size=4, num_threads=1, datasets=(dict(path="a", spec="s"),)),
        model=dict(name="policy"),
        optimizer=dict(learning_rate=0.1),
        train=dict(steps=10, **train),
        evaluation=dict(horizon=5),
    )


def test_defaults_are_filled_in_and_tuples_become_lists():
    resolved = resolve(ConfigDict(config(keep=7)))
    assert resolved["train"]["keep"] == 7
    assert resolved["train"]["log_every"] == 50
    assert resolved["data"]["datasets"] == [dict(path="a", spec="s")]


def test_sections_may_be_given_as_pairs():
    given = config(mesh="fsdp=4,tensor=-1")
    given["model"] |= dict(compute="dtype=bfloat16,scan=True", lora="rank=4,alpha=8.0")
    resolved = resolve(given)
    assert resolved["train"]["mesh"] == dict(fsdp=4, tensor=-1)
    assert resolved["model"]["compute"] == dict(dtype="bfloat16", scan=True)
    assert resolved["model"]["lora"] == dict(rank=4, alpha=8.0)
    with pytest.raises(ValueError, match=r"train.mesh is 'fsdp'; expected name=value"):
        resolve(config(mesh="fsdp"))


def test_an_impossible_precision_of_frozen_parts_is_an_error():
    with pytest.raises(ValueError, match=r"frozen_dtype is 'int8'; choose 'bfloat16'"):
        resolve(config(frozen_dtype="int8"))


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(trian={}), "Unknown key 'trian' in config; did you mean 'train'?"),
        (
            dict(train=dict(steps=1, log_evry=2)),
            "Unknown key 'log_evry' in config.train; did you mean 'log_every'",
        ),
        (
            dict(optimizer=dict(learning_rat=1.0)),
            "Unknown key 'learning_rat' in config.optimizer; did you mean 'learn",
        ),
        (
            dict(evaluation=dict(excute=2)),
            "Unknown key 'excute' in config.evaluation; did you mean 'execute'",
        ),
        (dict(train=dict(steps=0)), "config.train.steps is 0; expected a positive"),
        (dict(train=dict()), "config.train.steps is None; expected a positive"),
        (dict(train=dict(steps=1, log_every=0)), "train.log_every is 0"),
        (
            dict(train=dict(steps=1, eval_every=None)),
            "train.eval_every is None; expected an integer of at least 0.",
        ),
        (
            dict(train=dict(steps=1, accumulate=0)),
            "train.accumulate is 0; expected an integer of at least 1.",
        ),
        (dict(train=dict(steps=1, ema_decay=1.0)), "train.ema_decay is 1.0"),
        (dict(model=dict(width=object())), "a value that is not JSON"),
    ],
)
def test_a_wrong_key_or_number_is_an_error_that_names_it(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve({**config(), **change})


def test_a_missing_section_is_an_error():
    with pytest.raises(ValueError, match=r"config lacks \['optimizer'\]"):
        resolve({k: v for k, v in config().items() if k != "optimizer"})


def test_phases_are_laid_end_to_end():
    anchor = dict(name="anchor", steps=3, loss_weights=dict(residual=0.0))
    refine = dict(name="refine", steps=4, freeze=("head/anchor",))
    first, second = make_phases(dict(steps=None, phases=(anchor, refine)))
    assert (first.start, first.stop) == (0, 3)
    assert (second.start, second.stop) == (3, 7)
    assert second.freeze == ("head/anchor",)
    (only,) = make_phases(dict(steps=5, phases=()))
    assert (only.name, only.start, only.stop) == ("train", 0, 5)


@pytest.mark.parametrize(
    "phases, message",
    [
        (
            (dict(name="a", steps=2, freze=()),),
            "Unknown key 'freze' in config.train.ph",
        ),
        ((dict(name="a"),), "config.train.phases[0] lacks ['steps']"),
        ((dict(name="a", steps=2),) * 2, "need different names"),
        ((dict(name="a", steps=2), dict(name="b", steps=3)), "add up to 5"),
        ((dict(name="a", steps=10, optimizer=dict(lr=1)),), "Unknown key 'lr' in"),
    ],
)
def test_an_impossible_phase_is_an_error(phases, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(config(phases=phases))
