"""Configs: misspelled keys, phases, and what a resumed run may change."""

import re

import pytest
from ml_collections import ConfigDict

from vla_jax.train.config import changed_keys, make_phases, require_same, resolve


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


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(trian={}), "Unknown key 'trian' in config; did you mean train?"),
        (
            dict(train=dict(steps=1, log_evry=2)),
            "Unknown key 'log_evry' in config.train; did you mean log_every",
        ),
        (
            dict(optimizer=dict(learning_rat=1.0)),
            "Unknown key 'learning_rat' in config.optimizer; did you mean learning_",
        ),
        (
            dict(evaluation=dict(excute=2)),
            "Unknown key 'excute' in config.evaluation; did you mean execute",
        ),
        (dict(train=dict(steps=0)), "config.train.steps is 0; expected a positive"),
        (dict(train=dict()), "config.train.steps is None; expected a positive"),
        (dict(train=dict(steps=1, log_every=0)), "train.log_every is 0"),
        (dict(train=dict(steps=1, ema_decay=1.0)), "train.ema_decay is 1.0"),
        (dict(model=dict(width=object())), "a value that is not JSON"),
    ],
)
def test_a_wrong_key_or_number_is_an_error_that_names_it(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve({**config(), **change})


def test_a_missing_section_is_an_error():
    with pytest.raises(ValueError, match=r"lacks the sections \['optimizer'\]"):
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


def test_only_harmless_keys_may_change():
    before, now = resolve(config()), resolve(config())
    now["train"] |= dict(steps=20, log_every=1, keep=9, mesh=dict(fsdp=2), wandb=True)
    now["data"]["num_threads"] = 8
    now["data"]["datasets"][0]["path"] = "b"
    now["evaluation"] = dict(horizon=50)
    assert changed_keys(before, now) == []
    now["optimizer"]["b1"] = 0.8
    now["data"]["batch_size"] = 8
    assert changed_keys(before, now) == [
        ("data.batch_size", 4, 8),
        ("optimizer.b1", "(absent)", 0.8),
    ]
    with pytest.raises(ValueError, match=r"runs/x was.*\n  data.batch_size: 4 -> 8\n"):
        require_same(before, now, "config", "runs/x")


def test_only_the_last_phase_may_change_its_length():
    phases = [dict(name="a", steps=2), dict(name="b", steps=3)]
    before = {"train": dict(phases=phases)}
    longer = [phases[0], dict(name="b", steps=30)]
    assert changed_keys(before, {"train": dict(phases=longer)}) == []
    moved = [dict(name="a", steps=20), phases[1]]
    assert changed_keys(before, {"train": dict(phases=moved)}) == [
        ("train.phases.0.steps", 2, 20)
    ]
