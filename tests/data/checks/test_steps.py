"""Flags, clocks, repeated steps, frozen pictures, raw numbers: one fault each."""

import numpy as np
import pytest

from tests import fake_arm


def _set(key, at, value):
    def change(number, steps):
        steps[key] = steps[key].copy()
        steps[key][at] = value

    return change


def _clock(function):
    def change(number, steps):
        steps["timestamp"] = function(steps["timestamp"]).astype(np.float32)

    return change


@pytest.mark.parametrize(
    ("change", "level", "check", "sentence"),
    [
        (
            _set("is_first", 5, True),
            "error",
            "step flags",
            "5 of 5 sampled episodes have is_first or is_last set in their midst: they "
            "are several episodes in one, and chunks of actions would run from one "
            "into the next.",
        ),
        (
            _set("is_last", slice(None), False),
            "warning",
            "step flags",
            "5 of 5 sampled episodes lack is_first at their first or is_last at their "
            "last step.",
        ),
        (
            _set("is_terminal", 20, True),
            "warning",
            "step flags",
            "5 of 5 sampled episodes go on after is_terminal.",
        ),
        (
            _clock(lambda time: 2 * time),
            "warning",
            "control rate",
            "Clocks say 5 Hz; the spec declares 10 Hz.",
        ),
        (
            _clock(lambda time: 1.7e9 + time),
            "warning",
            "control rate",
            "The clock stands still or goes back in 5 of 5 sampled episodes.",
        ),
        (
            _clock(lambda time: time + 3 * (time > 1)),
            "warning",
            "control rate",
            "5 of 5 sampled episodes have a step that takes over five times as long as "
            "usual.",
        ),
        (
            _set("force", 4, np.nan),
            "warning",
            "raw numbers",
            "['steps/force'] hold NaN or infinity in 5 of 5 sampled episodes; the "
            "standardize function does not take them into actions, proprio or poses.",
        ),
    ],
)
def test_a_faulty_recording_is_found(tmp_path, change, level, check, sentence):
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, change))
    assert (finding.level, finding.check, finding.sentence) == (level, check, sentence)
    assert finding.remedy.endswith(".") and finding.episodes


def test_clocks_in_milliseconds_agree(tmp_path):
    report = fake_arm.check(tmp_path, _clock(lambda time: 1000 * time))
    assert fake_arm.problems(report) == []
    finding = fake_arm.found(report, "control rate")
    assert finding.sentence == "Clocks say 10 Hz; the spec declares 10 Hz."


def test_repeated_steps_are_counted(tmp_path):
    def repeat(number, steps):
        if number == 2:
            for key in ("action", "pose", "image"):
                steps[key][4:12] = steps[key][4]

    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, repeat))
    # Steps 5 to 11 of one episode: 7 of 120.
    assert finding.sentence == (
        "6% of the sampled steps repeat the step before, with the same action, proprio "
        "and images."
    )
    assert finding.episodes == (2,)


def test_a_camera_that_hangs_is_found(tmp_path):
    def freeze(number, steps):
        if number == 2:
            steps["image"][:] = steps["image"][0]

    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, freeze))
    assert finding.sentence == (
        "Camera 'primary' shows the same image throughout 1 of 5 sampled episodes, "
        "though the robot moves."
    )
    assert finding.episodes == (2,)


def test_a_camera_slower_than_the_robot_is_found(tmp_path):
    def slow(number, steps):
        steps["image"][1::2] = steps["image"][::2]

    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, slow))
    # 12 of the 23 steps that have one before.
    assert finding.sentence == (
        "Camera 'primary' shows the image of the step before in 52% of the sampled "
        "steps in which the robot moves."
    )
