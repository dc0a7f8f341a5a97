"""The text of a function changes with its helpers, and with nothing else."""

import inspect

import pytest

from vla_jax.data import oxe
from vla_jax.data.digest import source_with_helpers
from vla_jax.data.oxe import gripper, language, motion


def _outer(value):
    return [_inner(v) for v in value]


def _inner(value):
    return _outer(value) if value else inspect.getsource(_outer)


def _other(value):
    return value


def test_helpers_are_found_in_comprehensions_and_circles():
    text = source_with_helpers(_outer)
    assert "def _outer" in text and "def _inner" in text
    assert "def _other" not in text and "def getsource" not in text


def test_helpers_are_found_through_modules():
    text = source_with_helpers(oxe.DATASETS["fractal20220817_data"].standardize)
    for helper in (
        gripper.opening_from_changes,
        motion.columns,
        language.instructions,
        language._merged,
    ):
        assert inspect.getsource(helper) in text
    assert inspect.getsource(gripper.binarized) not in text


def test_what_has_no_source_is_refused():
    with pytest.raises(TypeError):
        source_with_helpers(len)
