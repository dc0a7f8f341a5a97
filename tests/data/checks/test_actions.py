"""Ranges, kinds, angles, no-op steps: one fault each, and the sentence it gives."""

import dataclasses

import numpy as np

from tests import fake_arm


def test_a_constant_dimension_is_found(tmp_path):
    def no_roll(number, steps):
        steps["action"][:, 3] = 0.5

    report = fake_arm.check(tmp_path, no_roll)
    finding = fake_arm.problems(report)[0]
    assert (finding.level, finding.check) == ("warning", "action ranges")
    assert finding.sentence == "Action dimension 3 is constant (0.5)."


def test_outliers_are_found(tmp_path):
    def throw(number, steps):
        if number == 1:
            steps["action"][3, 4] = 40
            steps["pose"] = fake_arm.play(steps["action"])

    report = fake_arm.check(tmp_path, throw, episodes=10)
    finding = fake_arm.found(report, "action ranges")
    assert finding.level == "warning"
    assert finding.sentence.startswith("Action dimension 4 has outliers: 98 % lie in [")
    assert finding.sentence.endswith(" to 40.")
    assert finding.remedy == (
        "Normalize action by 'quantile', not by 'min_max' or 'mean_std'."
    )


def test_a_relative_dimension_that_stays_away_from_zero_is_found(tmp_path):
    def offset(number, steps):
        steps["action"][:, 5] += 10

    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, offset))
    assert finding.sentence == (
        "Action dimension 5 is declared relative but stays around 10, as absolute ones "
        "do."
    )


def test_an_angle_that_wraps_is_found(tmp_path):
    def with_angle(raw):
        fields = fake_arm.standardize(raw)
        angle = np.linspace(3.0, 3.3, raw.num_steps)
        wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
        return fields | {"proprio": np.stack([angle, wrapped], axis=1)}

    spec = dataclasses.replace(fake_arm.ARM, standardize=with_angle)
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, spec=spec))
    assert finding.sentence == (
        "Proprio dimension 1 jumps by a full turn, as angles do where they wrap (first "
        "in episode 0)."
    )


def test_steps_that_do_nothing_are_counted(tmp_path):
    def wait(number, steps):
        steps["action"][4:16, :6] = 0
        steps["pose"] = fake_arm.play(steps["action"])

    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, wait))
    # Of 12 steps in 24, the one in which the gripper closes does something.
    assert finding.sentence == ("46% of the steps do nothing: no movement, no gripper.")
