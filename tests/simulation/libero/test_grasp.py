"""Grasps are where objects fit into the hand and the hand fits into the room."""

import numpy as np
import pytest

from tests.simulation.libero.shapes import book, bowl, boxes, wall
from vla_jax.simulation.libero.grasp import (
    Grasp,
    comfortable,
    hand_points,
    leaning,
    plan_grasp,
    room,
    tilted,
    turned,
)

_HERE = np.zeros(3)


def test_a_narrow_object_is_grasped_across():
    grasp = plan_grasp(book(), [], 0, _HERE)
    np.testing.assert_allclose(grasp.position, [1, 2, 0.02], atol=1e-3)
    np.testing.assert_allclose(grasp.rotation, turned(np.deg2rad(30)))


def test_a_wide_object_is_grasped_at_its_rim_away_from_a_wall():
    grasp = plan_grasp(bowl(), [wall(0.13)], 0, _HERE)
    x, y, z = grasp.position
    assert np.hypot(x, y) == pytest.approx(0.056, abs=0.006)
    assert y < 0.03
    assert z == pytest.approx(0.035)
    # The fingers close along the radius.
    assert abs(grasp.rotation[:2, 1] @ [x, y]) == pytest.approx(
        np.hypot(x, y), rel=1e-3
    )


def test_a_wall_where_it_is_put_counts_as_one_where_it_is_taken():
    beside = plan_grasp(bowl(), [wall(0.13)], 0, _HERE)
    later = plan_grasp(bowl(), [wall(1.13)], 0, np.array([0, 1.0, 0]))
    np.testing.assert_allclose(later.position, beside.position)


def test_the_hand_is_tilted_out_from_under_a_board():
    # 17 cm above the table, over all but the far side of the bowl.
    board = boxes([(1, 1, 0.1)], [(0, -0.97, 0.27)])
    upright = plan_grasp(bowl(), [wall(1)], 0, _HERE)
    np.testing.assert_allclose(upright.rotation[:, 2], [0, 0, -1], atol=1e-12)
    grasp = plan_grasp(bowl(), [board], 0, _HERE)
    assert -grasp.rotation[1, 2] > 0.2
    straight = Grasp(grasp.position, turned(0.0))
    assert room(hand_points(grasp), [board]) > room(hand_points(straight), [board])


def test_a_flat_object_is_not_grasped_below_the_table():
    plate = boxes([(0.07, 0.07, 0.009)], [(0, 0, 0.009)])
    assert plan_grasp(plate, [], 0, _HERE).position[2] == pytest.approx(0.01)


def test_another_attempt_reaches_for_another_place():
    places = [plan_grasp(bowl(), [], n, _HERE).position for n in range(3)]
    assert len({tuple(place[:2]) for place in places}) == 3
    np.testing.assert_allclose([p[2] for p in places], [0.035, 0.029, 0.023])


@pytest.mark.parametrize(
    ("degrees", "expected"), [(0, 0), (-90, 90), (134, 134), (136, -44), (-45, -45)]
)
def test_a_comfortable_turn_is_the_same_grasp(degrees, expected):
    assert np.rad2deg(comfortable(np.deg2rad(degrees))) == pytest.approx(expected)


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_a_leaning_hand_faces_what_it_leans_to(degrees):
    out = np.array([0.6, 0.8, 0])
    rotation = leaning(out, np.deg2rad(degrees), turned(0.0))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert rotation[:, 2] @ -out == pytest.approx(np.sin(np.deg2rad(degrees)))
    # Fingers one above the other: the axis across the palm stays level.
    assert rotation[2, 0] == pytest.approx(0, abs=1e-12)


def test_a_tilted_wrist_moves_where_it_tilts_to():
    rotation = tilted(turned(0.3), np.array([0, 1.0, 0]), np.deg2rad(30))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    # The wrist is behind the hand, opposite to where it points.
    np.testing.assert_allclose(-rotation[:, 2], [0, 0.5, np.sqrt(0.75)], atol=1e-12)
