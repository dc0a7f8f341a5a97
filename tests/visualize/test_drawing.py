"""Where points and maps land on a picture."""

import numpy as np
import pytest

from vla_jax.visualize.drawing import (
    draw_maps,
    draw_points,
    overlay,
    stack_rows,
    to_pixels,
)
from vla_jax.visualize.inspection import Inspection


def inspection(points=True):
    """One point that goes from the upper left to the lower right in two steps."""
    path = np.array([[[-1.0, -1.0]], [[1.0, 1.0]]])  # [T k 2]
    maps = np.zeros((2, 1, 4, 4))
    maps[0, 0, 0, 0] = maps[1, 0, 3, 3] = 1
    found = dict(
        images={"top": np.full((2, 320, 320, 3), 90, np.uint8)},
        maps={"top": maps},
        points={"top": path} if points else {},
        future_points={"top": np.repeat(path[:, None], 3, 1)} if points else {},
        steps_per_second=50.0,
        instruction="",
    )
    return Inspection(**found)


def test_corners_of_the_picture_are_minus_one_and_one():
    points = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    expected = [[0, 0], [639, 479], [319.5, 239.5]]
    np.testing.assert_allclose(to_pixels(points, (480, 640)), expected)


def test_heat_is_where_the_map_is():
    picture = np.full((8, 12, 3), 100, np.uint8)
    heat = np.zeros((2, 3))
    heat[1, 2] = 0.01  # the largest, however small
    drawn = overlay(picture, heat).astype(int)
    assert drawn[-1, -1, 0] > 200 and drawn[0, 0].max() <= 60
    assert overlay(picture, np.zeros((2, 3))).max() <= 60


def test_discs_trail_and_future_are_drawn_at_the_points():
    first, second = draw_points(inspection())
    red = np.array([255, 0, 0])
    for frame, (x, y) in ((first, (2, 2)), (second, (317, 317))):
        np.testing.assert_array_equal(frame[y, x], red)
    assert not (first[160, 480] == red).all()  # the right panel has no trail yet
    assert (second[155:166, 475:486] == red).all(-1).any()  # the diagonal
    assert first.shape[1] == 640 and first.shape[0] > 320  # two panels and a caption


def test_maps_are_drawn_for_policies_without_points_and_points_are_missed():
    frames = list(draw_maps(inspection(points=False)))
    assert len(frames) == 2 and frames[0].dtype == np.uint8
    assert frames[0][10, 10, 0] > 200 > frames[1][10, 10, 0]
    with pytest.raises(ValueError, match="no points to draw"):
        next(draw_points(inspection(points=False)))


def test_rows_of_different_width_are_filled_up():
    rows = [np.ones((2, 3, 3), np.uint8), np.ones((1, 5, 3), np.uint8)]
    stacked = stack_rows(rows)
    assert stacked.shape == (3, 5, 3) and stacked[0, 4, 0] == 0
