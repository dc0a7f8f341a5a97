"""Metrics of attention points, by hand."""

import numpy as np
import pytest

from vla_jax.simulation.point_metrics import (
    count_stages,
    drift,
    find_static,
    jitter,
    locked_fraction,
    measure,
    prediction_error,
    rescale,
    to_pixels,
)

ALL = np.array([True, True, True])


def test_normalized_points_become_pixels_of_480_by_640():
    corners = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(
        to_pixels(corners, (480, 640)), [[0.5, 0.5], [639.5, 479.5], [320, 240]]
    )
    # Of a picture of 2 by 4 the first pixel is 160 wide and 240 high.
    np.testing.assert_allclose(
        to_pixels(corners, (2, 4)), [[80, 120], [560, 360], [320, 240]]
    )
    np.testing.assert_allclose(rescale(np.array([2.0, 1.0]), (2, 4)), [320, 240])


def test_a_point_that_moves_with_its_object_does_not_drift():
    objects = np.array([[[0.0, 0]], [[10, 0]], [[10, 20]]])
    drifts, owner = drift(objects + [3.0, -4.0], objects, ALL)
    np.testing.assert_allclose(drifts, [0.0], atol=1e-12)
    assert owner.tolist() == [0]


def test_drift_is_the_spread_around_the_mean_offset_from_the_best_object():
    moving = np.array([[0.0, 0], [30, 0], [60, 0]])
    resting = np.array([[100.0, 100], [100, 100], [100, 100]])
    objects = np.stack([moving, resting], axis=1)
    # Offsets to the resting one: (0, 0), (3, 0), (0, 3); their mean is (1, 1).
    points = (resting + [[0, 0], [3, 0], [0, 3]])[:, None]
    drifts, owner = drift(points, objects, ALL)
    np.testing.assert_allclose(drifts, [np.sqrt((2 + 5 + 5) / 3)])
    assert owner.tolist() == [1]


def test_masked_steps_and_hidden_objects_do_not_count():
    objects = np.zeros((3, 2, 2))
    objects[:, 1] = np.nan
    points = np.array([[[1.0, 1]], [[500, 500]], [[1, 1]]])
    drifts, owner = drift(points, objects, np.array([True, False, True]))
    np.testing.assert_allclose(drifts, [0.0], atol=1e-12)
    assert owner.tolist() == [0]
    drifts, owner = drift(points, objects, np.zeros(3, bool))
    assert np.isnan(drifts).all() and owner.tolist() == [-1]


def test_jitter_is_the_mean_step_while_the_objects_rest():
    points = np.array([[[0.0, 0]], [[3, 4]], [[3, 4]], [[3, 10]]])
    every = np.ones(4, bool)
    np.testing.assert_allclose(jitter(points, every, every), [(5 + 0 + 6) / 3])
    moved_at_3 = np.array([True, True, True, False])
    np.testing.assert_allclose(jitter(points, moved_at_3, every), [2.5])
    unknown_at_1 = np.array([True, False, True, True])
    np.testing.assert_allclose(jitter(points, every, unknown_at_1), [6.0])
    assert np.isnan(jitter(points, ~every, every)).all()


def test_an_object_rests_while_it_moves_less_than_the_tolerance():
    positions = np.array([[[0.0, 0, 0]], [[0.0001, 0, 0]], [[0.1, 0, 0]]])
    assert find_static(positions).tolist() == [True, True, False]
    assert find_static(positions, 1.0).tolist() == [True, True, True]


def test_points_below_forty_pixels_are_locked():
    assert locked_fraction(np.array([0.0, 39.9, 40.0, np.nan])) == 0.5


def test_prediction_error_compares_with_the_points_of_the_later_frame():
    points = np.array([[[0.0, 0]], [[2, 0]], [[2, 4]]])
    future = np.zeros((3, 2, 1, 2))
    future[0, 1] = [2, 2]  # came out as (2, 0): |0| + |2|, a mean of 1
    future[1, 1] = [2, 4]  # came out as (2, 4)
    errors = prediction_error(points, future, ALL, offsets=(0, 1, 2))
    assert errors == {0: (0 + 0 + 2 + 0 + 2 + 4) / 6, 1: 0.5}
    hidden = prediction_error(points, future, np.array([True, True, False]), (1,))
    assert hidden == {1: 1.0}
    assert prediction_error(points, future, np.array([True, False, True]), (1,)) == {}


def test_measure_judges_every_point_in_its_own_camera():
    top = np.array([[[0.0, 0]], [[50, 0]], [[100, 0]]])
    angle = np.array([[[0.0, 0]], [[0, 50]], [[0, 100]]])
    points = np.concatenate([top + 5, top], axis=1)  # the second follows the wrong one
    found = measure(
        points,
        None,
        ALL,
        cameras=("primary", "secondary"),
        objects={"primary": top, "secondary": angle},
        positions=np.zeros((3, 1, 3)),
    )
    assert found["locked"] == 0.5
    assert found["drift"] == pytest.approx(0.0, abs=1e-12)
    assert found["jitter"] == pytest.approx(50.0)
    assert "prediction_error/10" not in found


def test_measure_leaves_out_what_cannot_be_told():
    points = np.zeros((3, 1, 2))
    found = measure(points, None, ALL, cameras=("primary",), objects={}, positions=None)
    assert found == {}
    far = np.array([[[0.0, 0]], [[500, 0]], [[900, 0]]])
    found = measure(
        points,
        np.zeros((3, 2, 1, 2)),
        ALL,
        cameras=("primary",),
        objects={"primary": far},
        positions=None,
    )
    assert found == {"locked": 0.0}


def test_a_stage_counts_when_it_or_a_later_one_was_reached():
    assert count_stages([0, 1, 4, 2, 4], 4) == [4, 3, 2, 2]
    assert count_stages([], 2) == [0, 0]
