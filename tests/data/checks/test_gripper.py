"""The gripper: range, what comes first, lifting; one fault each."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from absl import logging

from tests import fake_arm
from vla_jax.data.checks.gripper import unclear_share, warn_undecided

HALF = fake_arm.GRASP


def _gripper(values):
    def change(number, steps):
        steps["action"][:, 6] = values(steps["action"][:, 6])

    return change


def test_another_range_is_an_error(tmp_path):
    report = fake_arm.check(tmp_path, _gripper(lambda g: 2 * g - 1))
    (finding,) = fake_arm.problems(report)
    assert finding.level == "error"
    assert finding.sentence == (
        "The gripper goes from -1 to 1; the standard is 0 (closed) to 1 (open)."
    )
    assert "(1 - gripper) / 2" in finding.remedy


def test_a_gripper_that_never_moves_is_found(tmp_path):
    report = fake_arm.check(tmp_path, _gripper(lambda g: 0 * g + 1))
    assert [f.sentence for f in fake_arm.problems(report)] == [
        "Proprio dimension 7 is constant (1).",
        "The gripper never moves: it is always 1.",
    ]


def test_a_gripper_the_wrong_way_round_is_found(tmp_path):
    report = fake_arm.check(tmp_path, _gripper(lambda g: 1 - g))
    (finding,) = fake_arm.problems(report)
    assert (finding.level, finding.check) == ("warning", "gripper convention")
    assert finding.sentence == (
        "100% of the episodes begin with a closed gripper (below 0.5), and 5 of the 5 "
        "sampled ones in which it moves open it first."
    )


def test_commands_between_open_and_closed_are_found(tmp_path):
    report = fake_arm.check(tmp_path, _gripper(lambda g: g / 2))
    (finding,) = fake_arm.problems(report)
    assert finding.sentence == (
        "In 50% of the steps the gripper is told a number between 0.4 and 0.6, neither "
        "open nor closed."
    )


def test_rising_after_opening_instead_of_closing_is_found(tmp_path):
    def change(number, steps):
        step = np.arange(fake_arm.LENGTH)
        steps["action"][:, 6] = (step < 3) | (step >= HALF)
        steps["action"][:HALF, 2] = -np.abs(steps["action"][:HALF, 2])
        steps["pose"] = fake_arm.play(steps["action"])

    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, change))
    assert (finding.level, finding.check) == ("warning", "gripper and lifting")
    assert finding.sentence == (
        "0 of 5 closings are followed by a rise of the end effector within 2 s, and 5 "
        "of 5 openings."
    )


def test_without_a_gripper_nothing_is_said_about_it(tmp_path):
    def standardize(raw):
        fields = fake_arm.standardize(raw)
        return fields | {"action": fields["action"][:, :6]}

    spec = dataclasses.replace(
        fake_arm.ARM, action=("relative",) * 6, standardize=standardize
    )
    finding = fake_arm.found(fake_arm.check(tmp_path, spec=spec), "gripper")
    assert (finding.level, finding.sentence) == (
        "skipped",
        "The spec declares no gripper.",
    )


@pytest.mark.parametrize("told", [0.375, 0.5])
def test_a_head_that_decides_is_warned_of_commands_in_between(told, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *a: said.append(text % a))
    action = np.ones((20, 7), np.float32)
    index = SimpleNamespace(spec=fake_arm.ARM, action=action)
    warn_undecided([index])
    action[:2, 6] = told
    assert unclear_share(index) == 0.1 and not said
    warn_undecided([index])
    assert f"in 10 % of the steps of '{fake_arm.ARM.name}'" in said[0]


def test_without_a_gripper_nothing_is_unclear():
    spec = dataclasses.replace(fake_arm.ARM, action=("relative",) * 7)
    action = np.full((20, 7), 0.5, np.float32)
    assert unclear_share(SimpleNamespace(spec=spec, action=action)) == 0
