"""Counts, lengths, splits, duplicates: one fault each, and the sentence it gives."""

import dataclasses

import pytest

from tests import fake_arm
from vla_jax.data.checks.finding import Finding, Sample
from vla_jax.data.index import open_index
from vla_jax.data.validate import validate


def test_an_episode_of_one_step_is_found(tmp_path):
    report = fake_arm.check(
        tmp_path, lambda number, steps: fake_arm.episode(1, 1) if number == 1 else None
    )
    assert fake_arm.problems(report) == [
        Finding(
            "warning",
            "episode lengths",
            "1 of 5 episodes have a single step.",
            "A chunk of actions needs more: check how the episodes were cut.",
            (1,),
        )
    ]


def test_an_episode_far_shorter_than_the_others_is_found(tmp_path):
    report = fake_arm.check(
        tmp_path, lambda number, steps: fake_arm.episode(1, 2) if number == 1 else None
    )
    (finding,) = fake_arm.problems(report)
    assert finding.sentence == (
        "1 of 5 episodes are over 10 times longer or shorter than the median of 24 "
        "steps, such as episode 1 with 2."
    )


def test_a_copied_episode_is_found_and_whether_it_crosses_splits(tmp_path):
    # Which episode is held out is fixed; 0 and 3 are both of the training split.
    def copy(number, steps):
        return fake_arm.episode({3: 0}.get(number, number))

    folder = fake_arm.write_arm(tmp_path / "same", copy)
    index = open_index(folder, fake_arm.ARM, progress=False)
    (held_out,) = index.split_episodes("val").tolist()
    assert held_out not in (0, 3)
    (finding,) = fake_arm.problems(validate(index)[0])
    assert finding.check == "duplicate episodes" and finding.episodes == (3,)
    assert finding.sentence == "1 of 5 episodes are copies, such as 3 of 0."

    def leak(number, steps):
        return fake_arm.episode({held_out: 0}.get(number, number))

    (finding,) = fake_arm.problems(fake_arm.check(tmp_path / "leak", leak))
    assert finding.sentence == (
        f"1 of 5 episodes are copies, such as {held_out} of 0. 1 of them lie in "
        "another split than the original, so that validation would measure memory."
    )


def test_the_same_numbers_with_other_images_are_no_copy(tmp_path):
    def alike(number, steps):
        return fake_arm.episode(0) | {"image": steps["image"]}

    assert fake_arm.problems(fake_arm.check(tmp_path, alike)) == []


def test_a_data_set_without_validation_split_is_found(tmp_path):
    spec = dataclasses.replace(fake_arm.ARM, holdout=0.0)
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, spec=spec))
    assert finding.sentence == ("No episode is held out for validation: 5 in 'train'.")


def test_failures_are_counted(tmp_path):
    def standardize(raw):
        height = float(raw.arrays["steps/pose"][-1, 2])
        return fake_arm.standardize(raw) | {"success": height > 9}

    spec = dataclasses.replace(fake_arm.ARM, standardize=standardize)
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, spec=spec))
    assert finding.sentence == "0 of 5 episodes that say so have succeeded."


def test_corrupt_episodes_that_were_left_out_are_listed(tmp_path):
    folder = fake_arm.write_arm(tmp_path)
    (shard,) = folder.glob("*.tfrecord-*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 10] ^= 255  # within episode 0
    shard.write_bytes(content)
    index = open_index(folder, fake_arm.ARM, progress=False, skip_corrupt=True)
    (finding,) = fake_arm.problems(validate(index)[0])
    assert finding.sentence == "1 episodes are corrupt and were left out."
    assert f"Download their shards again: {shard} at byte " in finding.remedy


@pytest.mark.parametrize(
    ("size", "scope"),
    [
        (2, "2 of 5 episodes, drawn at random"),
        (5, "all 5 episodes"),
        (0, "all 5 episodes"),
    ],
)
def test_a_sample_says_what_it_is(tmp_path, size, scope):
    index = open_index(fake_arm.write_arm(tmp_path), fake_arm.ARM, progress=False)
    sample = Sample.draw(index, size)
    assert sample.scope == scope
    assert sample.episodes.tolist() == Sample.draw(index, size).episodes.tolist()
    assert validate(index, num_episodes=size)[0].scope == scope
