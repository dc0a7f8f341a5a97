"""Every gripper convention becomes 1 for open and 0 for closed."""

import numpy as np
import pytest

from vla_jax.data.oxe import gripper


def _list(column: np.ndarray) -> list:
    assert column.dtype == np.float32 and column.shape[1:] == (1,)
    return column[:, 0].tolist()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # Closes at step 1 and opens at step 3: open before, closed between.
        ([0, 1, 0, -1, 0], [1, 0, 0, 1, 1]),
        # Opens first: it must have been closed before.
        ([0, -1, 0, 1], [0, 1, 1, 0]),
        ([0, 0, 0], [1, 1, 1]),
        ([1], [0]),
        ([-1], [1]),
        # What is no larger than the threshold is no command.
        ([0.05, 0.5, -0.05, -0.5], [1, 0, 0, 1]),
        ([1, 1, 0, 1, -1, -1], [0, 0, 0, 0, 1, 1]),
    ],
)
def test_changes_are_held_until_the_next(change, expected):
    assert _list(gripper.opening_from_changes(change)) == expected


def test_the_state_before_the_first_command_depends_on_the_command():
    closes = gripper.opening_from_changes([0, 0, 1])
    opens = gripper.opening_from_changes([0, 0, -1])
    assert _list(closes)[:2] == [1, 1] and _list(opens)[:2] == [0, 0]


@pytest.mark.parametrize(
    ("openness", "expected"),
    [
        ([1, 0.7, 0.3, 0, 0.4, 1], [1, 0, 0, 0, 1, 1]),
        ([0.96, 0.04], [1, 0]),
        # A transition that the episode does not finish goes where it is closer to.
        ([1, 0.6, 0.2], [1, 0, 0]),
        ([0, 0.4, 0.8], [0, 1, 1]),
        ([0.5], [0]),
        ([], []),
    ],
)
def test_transitions_take_the_state_they_lead_to(openness, expected):
    assert _list(gripper.binarized(openness)) == expected


def test_closedness_is_turned_over_and_cut():
    assert _list(gripper.opening([-1, 0, 0.25, 1, 2])) == [1, 1, 0.75, 0, 0]
    assert _list(gripper.kept([-1, 0, 0.25, 1, 2])) == [0, 0, 0.25, 1, 1]


def test_signed_efforts_name_the_closed_side():
    assert _list(gripper.opening_from_signed([-1, 0, 1], closed=1)) == [1, 0.5, 0]
    assert _list(gripper.opening_from_signed([-1, 0, 1], closed=-1)) == [0, 0.5, 1]


def test_a_gripper_that_never_moves_is_constant():
    assert _list(gripper.constant(2, openness=0)) == [0, 0]
