"""Arms take turns in processes of their own, and say what is wrong."""

import pytest

from tests import fake
from vla_jax.benchmark import turns
from vla_jax.benchmark.report import Row


def test_rivals_that_are_not_installed_are_left_out_with_a_sentence(
    monkeypatch, capsys
):
    monkeypatch.setattr(
        turns.importlib.util, "find_spec", lambda name: name == "tensorflow" or None
    )
    assert turns.choose_rivals(["tfdata", "dlimp"]) == ["tfdata"]
    assert "Leaving dlimp out of the comparison: dlimp is not" in capsys.readouterr()[0]
    with pytest.raises(ValueError, match=r"'dlim' in --compare.*'dlimp'"):
        turns.choose_rivals(["dlim"])


def test_ratios_are_taken_within_a_turn():
    slow, fast = (
        [{"seconds": s} for s in (2, 8, 6)],
        [{"seconds": s} for s in (1, 2, 3)],
    )
    row = turns.ratio("a/vs_b", slow, fast, "seconds")
    assert row == Row("a/vs_b", 2.0, "1", turns=3, low=2.0, high=4.0)


def test_arms_load_the_same_images_in_every_turn(tmp_path):
    config = fake.data_config(
        fake.write_dataset(tmp_path, lengths=(6, 5)), num_threads=2, prefetch=2
    )
    results = turns.take_turns(
        ("raw", "loader"), config, num_batches=3, turns=2, shuffle=1
    )
    assert {name: len(rows) for name, rows in results.items()} == {
        "raw": 2,
        "loader": 2,
    }
    for row in results["loader"]:
        # Batches of 2 samples with 2 frames of 2 cameras.
        assert row["images"] == 3 * 2 * 2 * 2
        assert row["seconds"] > 0 and row["rss_mb"] > 10
    # Frames before the first of an episode are copies: nothing decodes them.
    (count,) = {row["images"] for row in results["raw"]}
    assert 12 <= count <= 24


def test_what_is_wrong_with_an_arm_reaches_the_caller(tmp_path):
    config = fake.data_config(fake.write_dataset(tmp_path), image_size=(4, 4))
    settings = dict(num_batches=1, shuffle=1)
    with (
        pytest.raises(ValueError, match=r"images are 8 x 8 pixels.*\(4, 4\)"),
        turns.open_arm("raw", {"config": config, **settings}),
    ):
        pass
    with (
        pytest.raises(RuntimeError, match=r"arm 'lodaer'.*died(.|\n)*KeyError"),
        turns.open_arm("lodaer", {"config": config, **settings}),
    ):
        pass
