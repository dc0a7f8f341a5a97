"""Extents are measured on collision boxes, whatever way they are turned."""

import numpy as np
import pytest

from tests.own_process import in_own_process
from tests.simulation.libero.shapes import book, bowl, boxes, turn
from vla_jax.simulation.libero.geometry import narrowest


def test_the_extent_is_that_of_the_turned_boxes():
    shape = book()
    np.testing.assert_allclose(shape.center, [1, 2, 0.02])
    assert (shape.bottom, shape.top) == pytest.approx((0, 0.04))
    reach = 0.1 * np.cos(np.pi / 6) + 0.02 * np.sin(np.pi / 6)
    assert shape.boxes[..., 0].max() == pytest.approx(1 + reach)


def test_the_surface_is_what_lies_over_the_center():
    assert bowl().surface() == pytest.approx(0.05)  # nothing there: the rim
    step = boxes([(0, 0, 0.1), (1, 1, 0.1)], [(0, 0, 0), (1, 0, 0.5)])
    assert boxes([(0.1, 0.1, 0.02)], [(0, 0, 0.02)]).surface() == pytest.approx(0.04)
    assert step.surface(radius=0.1) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ([1, 2, 0.02], 0.0),
        ([1, 2, 0.14], 0.1),
        # 1 cm beyond the long side, along the turned normal.
        ([1 - 0.03 * 0.5, 2 + 0.03 * 3**0.5 / 2, 0.02], 0.01),
    ],
)
def test_distance_is_to_the_turned_box(point, expected):
    assert book().distance(np.array([point])) == pytest.approx(expected, abs=1e-9)


def test_the_narrow_side_of_a_turned_box_is_found():
    yaw, width, middle = narrowest(book().slab(0.0, 0.04))
    assert np.rad2deg(yaw) == pytest.approx(30)
    assert width == pytest.approx(0.04, abs=1e-3)
    np.testing.assert_allclose(middle, [1, 2], atol=1e-3)


@in_own_process
def test_collision_boxes_are_read_from_a_model_with_what_hangs_on_a_body():
    import mujoco
    import numpy as np
    import pytest

    from tests.simulation.libero.shapes import book
    from vla_jax.simulation.libero.geometry import shape

    model = mujoco.MjModel.from_xml_string("""<mujoco><worldbody>
    <body name='book' pos='1 2 .02' euler='0 0 30'>
      <geom type='box' group='0' size='.1 .02 .02'/>
      <geom type='box' group='1' size='1 1 1' contype='0'/>
    </body>
    <body name='ball'><geom type='sphere' size='.1'/></body>
    <body name='stand' pos='0 0 1'>
      <geom type='box' group='0' size='.1 .1 .01'/>
      <body name='drawer' pos='0 0 .5'>
        <geom type='box' group='0' size='.1 .1 .01'/>
      </body>
    </body></worldbody></mujoco>""")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    read = shape(model, data, model.body("book").id)
    np.testing.assert_allclose(read.boxes, book().boxes, atol=1e-9)
    assert shape(model, data, model.body("stand").id).top == pytest.approx(1.51)
    with pytest.raises(ValueError, match="'ball' has no collision boxes"):
        shape(model, data, model.body("ball").id)


def test_turning_by_hand_agrees_with_the_axes():
    np.testing.assert_allclose(turn(90) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
