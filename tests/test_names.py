"""Messages about unknown and missing names."""

import re

import pytest

from vla_jax.names import check_keys, choose_words, did_you_mean


def test_the_nearest_names_come_before_all_of_them():
    assert (
        did_you_mean("flwo", ["regression", "flow"])
        == "did you mean 'flow'? Choose one of ['flow', 'regression']."
    )
    assert (
        did_you_mean("log_evry", {"log_every", "eval_every"})
        == "did you mean 'log_every' or 'eval_every'? Choose one of "
        "['eval_every', 'log_every']."
    )
    assert did_you_mean("x", ["flow"]) == "choose one of ['flow']."


def test_unknown_keys_are_refused_before_missing_ones():
    check_keys({"path": "a"}, ["path", "weight"], "data", required=["path"])
    message = (
        "Unknown key 'pth' in data; did you mean 'path'? Choose one of ['path', 'spec']"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        check_keys({"pth": "a"}, ["path", "spec"], "data", required=["path", "spec"])
    message = "data lacks ['spec']; it may have ['path', 'spec', 'weight']."
    with pytest.raises(ValueError, match=re.escape(message)):
        check_keys(
            {"path": "a"},
            ["path", "spec", "weight"],
            "data",
            required=["path", "spec"],
        )


def test_a_key_that_is_no_string_is_named_too():
    with pytest.raises(ValueError, match="Unknown key 3 in data; choose one of"):
        check_keys({3: 1}, ["path"], "data")


def test_words_of_a_variant_come_in_any_order_and_at_most_one_of_a_group():
    groups = ("small", "debug"), ("refine",)
    assert choose_words("", *groups) == ["", ""]
    assert choose_words("refine,debug", *groups) == ["debug", "refine"]
    for arg in ("big", "small,debug", "small,small", "refine,big"):
        message = (
            f"Unknown variant '{arg}'; choose words, at most one of each of "
            "['small', 'debug'] and ['refine']."
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            choose_words(arg, *groups)
