"""Actions against the motion that follows: signs, frames, kinds, timing, rotations."""

import dataclasses

import numpy as np
import pytest

from tests import fake_arm
from vla_jax.data.checks.covariance import Covariance
from vla_jax.data.checks.rotation import into_hand, turned


def _other_way(number, steps):
    steps["action"][:, 1] *= -1


def _swapped(number, steps):
    steps["action"][:, :2] = steps["action"][:, 1::-1]


def _late(number, steps):
    steps["action"][1:] = steps["action"][:-1].copy()


def _goals(number, steps):
    steps["action"][:-1, :3] = steps["pose"][1:, :3]
    steps["action"][-1, :3] = steps["pose"][-1, :3]


def _turning_hand(number, steps):
    """The hand begins a quarter turned about z; actions are told along its axes."""
    quarter = np.array([0, 0, np.pi / 2])
    orientations = [fake_arm.rotate(quarter, q) for q in steps["pose"][:, 3:]]
    steps["pose"][:, 3:] = orientations
    moves = steps["action"][:, :3]
    steps["action"][:, :3] = into_hand(moves, steps["pose"][:, 3:])


def _unequal(number, steps):
    steps["action"][:, 2] *= 10


def _degrees(number, steps):
    steps["action"][:, 3:6] = np.rad2deg(steps["action"][:, 3:6])


def _noise(number, steps):
    rng = np.random.default_rng(number)
    steps["action"][:, :3] = rng.normal(0, 0.01, (len(steps["action"]), 3))


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        (
            _other_way,
            [
                "Action dimension 1 moves the end effector's y the other way "
                "(correlation -1.00)."
            ],
        ),
        (
            _late,
            [
                "Actions agree with the motion that came before them (correlation "
                "1.00), less with the one that follows (0.26): they seem to be one "
                "step late."
            ],
        ),
        (
            _goals,
            [
                f"Action dimension {d} is declared relative but equals the end "
                f"effector's {'xyz'[d]} that is reached next (correlation 1.00)."
                for d in range(3)
            ],
        ),
        (
            _unequal,
            [
                "One unit of action dimension 0 moves the end effector by 1 m, one of "
                "dimension 2 by 0.1 m."
            ],
        ),
    ],
)
def test_actions_that_disagree_with_the_motion_are_found(tmp_path, change, sentences):
    report = fake_arm.check(tmp_path, change)
    found = [f for f in report.findings if f.check == "actions and motion"]
    assert [finding.sentence for finding in found] == sentences
    assert {finding.level for finding in found} == {"warning"}


def test_actions_along_the_axes_of_the_hand_are_recognized(tmp_path):
    report = fake_arm.check(tmp_path, _turning_hand)
    finding = fake_arm.found(report, "actions and motion")
    assert finding.sentence == (
        "The pose follows the actions along the axes of the hand at once (correlation "
        "1.00); one unit moves it by 1, 1, 1 m."
    )
    assert fake_arm.problems(report) == []


def test_absolute_actions_of_the_wrong_sign_are_found(tmp_path):
    def change(number, steps):
        _goals(number, steps)
        steps["action"][:, 0] *= -1

    kinds = ("absolute",) * 3 + ("relative",) * 3 + ("gripper",)
    spec = dataclasses.replace(fake_arm.ARM, action=kinds)
    report = fake_arm.check(tmp_path, change, spec=spec)
    (finding,) = fake_arm.problems(report)
    assert finding.sentence == (
        "Action dimension 0 moves the end effector's x the other way (correlation "
        "-1.00)."
    )


def test_swapped_axes_are_found(tmp_path):
    report = fake_arm.check(tmp_path, _swapped)
    x, y = (f for f in report.findings if f.check == "actions and motion")
    assert x.sentence.startswith(
        "Action dimension 0 moves the end effector's y (correlation 1.00) instead of "
        "the end effector's x ("
    )
    assert y.sentence.startswith("Action dimension 1 moves the end effector's x (")


def test_actions_that_move_nothing_are_found(tmp_path):
    finding = fake_arm.found(fake_arm.check(tmp_path, _noise), "actions and motion")
    assert finding.level == "warning"
    assert finding.sentence.startswith(
        "Actions and the motion of the end effector do not go together (correlation 0."
    )


def test_displacements_declared_absolute_are_found(tmp_path):
    kinds = ("absolute",) * 3 + ("relative",) * 3 + ("gripper",)
    spec = dataclasses.replace(fake_arm.ARM, action=kinds)
    report = fake_arm.check(tmp_path, spec=spec)
    sentences = [f.sentence for f in fake_arm.problems(report)]
    assert len(sentences) == 3
    assert sentences[1].startswith(
        "Action dimension 1 is declared absolute but goes with the change of the end "
        "effector's y (correlation 1.00), not with its value ("
    )


def test_states_without_pose_are_compared_column_by_column(tmp_path):
    def joints(raw):
        return fake_arm.standardize(raw) | {"pose": None, "camera": None}

    spec = dataclasses.replace(fake_arm.ARM, standardize=joints)
    report = fake_arm.check(tmp_path / "good", spec=spec)
    assert fake_arm.problems(report) == []
    finding = fake_arm.found(report, "actions and motion")
    assert finding.sentence.startswith("The proprio follows the actions at once (")
    report = fake_arm.check(tmp_path / "bad", _other_way, spec=spec)
    (finding,) = fake_arm.problems(report)
    assert finding.remedy == (
        "Turn its sign in the standardize function if both mean the same; return "
        "`pose` to make sure."
    )


def _order(order):
    def change(number, steps):
        steps["action"][:, 3:6] = order(steps["action"][:, 3:6].copy())

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            _degrees,
            "One unit of dimensions 3 to 5 turns the end effector by 0.0175 rad, which "
            "is a degree.",
        ),
        (
            _order(lambda turn: -turn),
            "Actions turn the end effector the other way (correlation -1.00).",
        ),
        (
            _order(lambda turn: turn[:, ::-1]),
            "Dimension 3 turns the end effector about z and dimension 5 about x "
            "(correlation 1.00).",
        ),
        (
            _order(lambda turn: np.random.default_rng(3).normal(size=turn.shape)),
            "Actions and turns of the end effector do not go together (correlation "
            "-0.03).",
        ),
    ],
)
def test_rotations_that_disagree_are_found(tmp_path, change, sentence):
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, change))
    assert (finding.check, finding.sentence) == ("rotation", sentence)


def _with_pose(alter):
    def standardize(raw):
        fields = fake_arm.standardize(raw)
        return fields | {"pose": alter(fields["pose"].copy())}

    return dataclasses.replace(fake_arm.ARM, standardize=standardize)


def test_a_quaternion_with_the_real_part_first_is_found(tmp_path):
    spec = _with_pose(lambda p: np.concatenate([p[:, :3], p[:, [6, 3, 4, 5]]], 1))
    # Far enough from no rotation that the order matters.
    (finding,) = fake_arm.problems(fake_arm.check(tmp_path, spec=spec))
    assert finding.sentence.startswith(
        "Actions turn the end effector as they say only if the quaternion of `pose` is "
        "w, x, y, z (correlation 1.00, otherwise "
    )


def test_millimetres_and_quaternions_that_are_none_are_found(tmp_path):
    spec = _with_pose(lambda pose: pose * ([1000] * 3 + [1] * 4))
    finding = fake_arm.found(fake_arm.check(tmp_path / "mm", spec=spec), "pose")
    assert finding.level == "warning"
    assert " m from the robot's base." in finding.sentence
    spec = _with_pose(lambda pose: pose * ([1] * 3 + [2] * 4))
    report = fake_arm.check(tmp_path / "long", spec=spec)
    finding = fake_arm.found(report, "pose")
    assert finding.level == "error" and report.count("error") == 1
    assert finding.sentence == (
        "In 5 of 5 sampled episodes the quaternion of `pose` is not of length 1."
    )


def test_covariance_in_pieces_is_that_of_the_whole():
    rng = np.random.default_rng(0)
    x = rng.normal(1000, 1, (50, 2))
    y = np.stack([2 * x[:, 0], -x[:, 1], rng.normal(size=50)], axis=1)
    covariance = Covariance()
    covariance.update(x[:20], y[:20])
    covariance.update(x[20:], y[20:])
    expected = np.corrcoef(x.T, y.T)[:2, 2:]
    np.testing.assert_allclose(covariance.correlation(), expected, atol=1e-9)
    np.testing.assert_allclose(np.diag(covariance.slope()), [2, -1], atol=1e-9)


def test_turns_are_told_in_the_frame_that_is_asked_for():
    # From a hand turned a quarter about z, another quarter about the base's x.
    half = np.sqrt(0.5)
    before = np.array([[0, 0, half, half]])
    after = np.array([fake_arm.rotate(np.array([np.pi / 2, 0, 0]), before[0])])
    quarter = np.pi / 2
    np.testing.assert_allclose(
        turned(before, after, frame="base"), [[quarter, 0, 0]], atol=1e-9
    )
    np.testing.assert_allclose(
        turned(before, after, frame="hand"), [[0, -quarter, 0]], atol=1e-9
    )
    np.testing.assert_allclose(turned(before, -before, frame="base"), 0, atol=1e-9)


def test_vectors_are_told_in_the_axes_of_the_hand():
    # A hand turned a quarter about z: the base's y is its x.
    half = np.sqrt(0.5)
    turned_hand = np.array([[0, 0, half, half]])
    vector = into_hand(np.array([[0.0, 2, 3]]), turned_hand)
    np.testing.assert_allclose(vector, [[2, 0, 3]], atol=1e-9)
