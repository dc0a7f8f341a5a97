"""Extents and grasps are measured on collision boxes, whatever way they are turned."""

import mujoco
import numpy as np
import pytest

from vla_jax.simulation.libero.geometry import narrowest, shape
from vla_jax.simulation.libero.grasp import comfortable, leaning, plan_grasp, turned

# A book 4 x 10 x 20 cm, lying turned by 30 degrees; a ring of eight posts, 12 cm wide
# and 5 cm high, as a bowl; a wall on one side of it.
_POSTS = "".join(
    f"<geom type='box' group='0' size='.003 .02 .025' euler='0 0 {a}' "
    f"pos='{0.06 * np.cos(np.deg2rad(a)):.4f} {0.06 * np.sin(np.deg2rad(a)):.4f} 0'/>"
    for a in range(0, 360, 45)
)
_SCENE = f"""<mujoco><compiler angle='degree'/><worldbody>
<body name='book' pos='1 2 .02' euler='0 0 30'>
  <geom type='box' group='0' size='.1 .02 .02'/>
  <geom type='box' group='1' size='1 1 1' contype='0'/>
</body>
<body name='bowl' pos='0 0 .025'>{_POSTS}</body>
<body name='wall' pos='0 .13 .1'><geom type='box' group='0' size='.5 .01 .1'/></body>
<body name='ball'><geom type='sphere' size='.1'/></body>
<body name='stand' pos='0 0 1'>
  <geom type='box' group='0' size='.1 .1 .01'/>
  <body name='drawer' pos='0 0 .5'><geom type='box' group='0' size='.1 .1 .01'/></body>
</body>
</worldbody></mujoco>"""


@pytest.fixture(scope="module")
def scene():
    model = mujoco.MjModel.from_xml_string(_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return lambda name: shape(model, data, model.body(name).id)


def test_the_extent_is_that_of_collision_boxes_only(scene):
    book = scene("book")
    np.testing.assert_allclose(book.center, [1, 2, 0.02])
    assert (book.bottom, book.top) == pytest.approx((0, 0.04))
    reach = 0.1 * np.cos(np.pi / 6) + 0.02 * np.sin(np.pi / 6)
    assert book.boxes[..., 0].max() == pytest.approx(1 + reach)


def test_what_hangs_on_a_body_belongs_to_it(scene):
    assert scene("stand").top == pytest.approx(1.51)


def test_a_body_without_boxes_is_named(scene):
    with pytest.raises(ValueError, match="'ball' has no collision boxes"):
        scene("ball")


def test_the_surface_is_what_lies_over_the_center(scene):
    assert scene("bowl").surface() == pytest.approx(0.05)  # nothing there: the rim
    assert scene("stand").surface() == pytest.approx(1.51)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ([1, 2, 0.02], 0.0),
        ([1, 2, 0.14], 0.1),
        # 1 cm beyond the long side, along the turned normal.
        ([1 - 0.03 * 0.5, 2 + 0.03 * 3**0.5 / 2, 0.02], 0.01),
    ],
)
def test_distance_is_to_the_turned_box(scene, point, expected):
    distance = scene("book").distance(np.array([point]))
    assert distance == pytest.approx(expected, abs=1e-9)


def test_the_narrow_side_of_a_turned_box_is_found(scene):
    yaw, width, middle = narrowest(scene("book").slab(0.0, 0.04))
    assert np.rad2deg(yaw) == pytest.approx(30)
    assert width == pytest.approx(0.04, abs=1e-3)
    np.testing.assert_allclose(middle, [1, 2], atol=1e-3)


def test_a_narrow_object_is_grasped_across(scene):
    grasp = plan_grasp(scene("book"), [], attempt=0)
    np.testing.assert_allclose(grasp.position, [1, 2, 0.02], atol=1e-3)
    np.testing.assert_allclose(grasp.rotation, turned(np.deg2rad(30)))


def test_a_wide_object_is_grasped_at_its_rim_away_from_a_wall(scene):
    grasp = plan_grasp(scene("bowl"), [scene("wall")], attempt=0)
    x, y, z = grasp.position
    assert np.hypot(x, y) == pytest.approx(0.056, abs=0.006)
    assert y < 0.03
    assert z == pytest.approx(0.035)
    # The fingers close along the radius.
    assert abs(grasp.rotation[:2, 1] @ [x, y]) == pytest.approx(
        np.hypot(x, y), rel=1e-3
    )


def test_another_attempt_reaches_for_another_place(scene):
    places = {tuple(plan_grasp(scene("bowl"), [], n).position) for n in range(3)}
    assert len(places) == 3


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
