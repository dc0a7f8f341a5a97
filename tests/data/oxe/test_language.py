"""Instructions come from all fields that have them."""

from types import SimpleNamespace

import numpy as np

from vla_jax.data.oxe.language import instructions, spelled_instructions


def _raw(**text):
    metadata = {"task": b"tidy up"}
    return SimpleNamespace(num_steps=2, text=text, metadata=metadata)


def test_every_field_can_be_drawn():
    raw = _raw(**{"steps/a": [b"go", b"go"], "steps/b": [b"walk", b"walk"]})
    assert instructions(raw, "steps/a", "steps/b") == ["go", "walk"]
    assert instructions(raw, "steps/a", "task", "steps/b") == ["go", "tidy up", "walk"]


def test_repetitions_and_empty_strings_are_left_out():
    raw = _raw(**{"steps/a": [b"go", b"go"], "steps/b": [b"go ", b""]})
    assert instructions(raw, "steps/a", "steps/b") == ["go"]
    assert instructions(_raw(**{"steps/a": [b"", b" "]}), "steps/a") == []


def test_steps_may_differ():
    raw = _raw(**{"steps/a": [b"open_drawer", b"close it"]})
    assert instructions(raw, "steps/a") == [["open drawer"], ["close it"]]


def test_code_points_end_at_the_first_zero():
    row = [ord(c) for c in "pùsh"] + [0, 0, ord("x")]
    assert spelled_instructions(np.array([row, row], np.int32)) == ["pùsh"]
    blank = np.zeros((2, 7), np.int32)
    assert spelled_instructions(blank) == []
