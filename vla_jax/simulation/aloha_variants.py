"""Disturbances of the ALOHA scenes: does a policy still find what it has to see?

A variant is drawn by the seed of the episode and by nothing else, so that two policies
meet the same disturbances. Things that are added can be seen but not touched: what they
change is the picture, never what the arms can do.

The protocol of MSACT's disturbance test is not published; these are simulated
counterparts of what it names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vla_jax.simulation.aloha_scene import CONTROL_HZ

_MAX_DISTRACTORS = 3
# Where both cameras look and neither arm is mounted, metres.
_TABLE_LOW, _TABLE_HIGH = np.array([-0.32, 0.36]), np.array([0.32, 0.72])
_APART = 0.09  # metres between a distractor and an object, centers
_HAND = 0.045  # radius in metres
_HAND_STEPS = round(1.0 * CONTROL_HZ)
_PUSH_STEPS = round(0.3 * CONTROL_HZ)
# Steps within which a disturbance begins.
_HAND_START, _PUSH_START = (30, 250), (10, 60)


class Variant(NamedTuple):
    """One kind of disturbance.

    Attributes:
        summary: for the help of a flag.
        edit: adds what it needs to a `mujoco.MjSpec`.
        draw: from (model, rng, start poses [o, 7], ranges), once per episode: changes
            the model, or returns what `apply` needs.
        apply: from (model, data, drawn, step), before every step.
    """

    summary: str
    edit: Callable[[Any], None] = lambda spec: None
    draw: Callable[..., Any] = lambda model, rng, poses, ranges: None
    apply: Callable[..., None] = lambda model, data, drawn, step: None


def _add_distractors(spec) -> None:
    for number in range(_MAX_DISTRACTORS):
        _add_visual(spec, f"distractor-{number}", "box")


def _add_hand(spec) -> None:
    _add_visual(spec, "hand", "sphere")


def _draw_distractors(model, rng, poses, ranges):
    """One to three boxes of random size, color and yaw, away from the objects."""
    del ranges
    taken = list(poses[:, :2])
    placed = []
    for _ in range(rng.integers(1, _MAX_DISTRACTORS + 1)):
        while True:
            place = rng.uniform(_TABLE_LOW, _TABLE_HIGH)
            if min(np.linalg.norm(place - other) for other in taken) > _APART:
                break
        taken.append(place)
        half, yaw = rng.uniform(0.015, 0.03, 3), rng.uniform(0, np.pi)
        placed.append((place, half, yaw, _color(rng)))
    return placed


def _show_distractors(model, data, drawn, step) -> None:
    if step:
        return
    for number in range(_MAX_DISTRACTORS):
        geom = model.geom(f"distractor-{number}")
        geom.rgba[3] = 0
        if number < len(drawn):
            place, half, yaw, color = drawn[number]
            geom.size[:] = half
            geom.rgba[:] = [*color, 1]
            body = model.body(f"distractor-{number}").mocapid[0]
            data.mocap_pos[body] = [*place, half[2]]
            data.mocap_quat[body] = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]


def _draw_light(model, rng, poses, ranges):
    """All lights are scaled by one factor, from 0.3 to 1.7."""
    del poses, ranges
    factor = rng.uniform(0.3, 1.7)
    model.light_diffuse *= factor
    model.light_ambient *= factor
    headlight = model.vis.headlight
    headlight.diffuse[:] = np.asarray(headlight.diffuse) * factor
    headlight.ambient[:] = np.asarray(headlight.ambient) * factor


def _draw_hand(model, rng, poses, ranges):
    """A sphere crosses the table for a second, from one side to the other."""
    del poses, ranges
    side = rng.choice([-1.0, 1.0])
    height = rng.uniform(0.1, 0.25, 2)
    depth = rng.uniform(0.4, 0.7, 2)
    path = [[side * 0.45, depth[0], height[0]], [-side * 0.45, depth[1], height[1]]]
    model.geom("hand").size[:] = _HAND
    return int(rng.integers(*_HAND_START)), np.array(path), _color(rng)


def _move_hand(model, data, drawn, step) -> None:
    begin, path, color = drawn
    share = (step - begin) / _HAND_STEPS
    visible = 0 <= share <= 1
    model.geom("hand").rgba[:] = [*color, float(visible)]
    body = model.body("hand").mocapid[0]
    data.mocap_pos[body] = path[0] + np.clip(share, 0, 1) * (path[1] - path[0])


def _draw_push(model, rng, poses, ranges):
    """One object slides 4 to 8 cm, staying where the task may start."""
    del model
    number = int(rng.integers(len(poses)))
    low, high = (np.array(corner[:2]) for corner in ranges[number])
    here = poses[number, :2]
    length, angle = rng.uniform(0.04, 0.08), rng.uniform(0, 2 * np.pi)
    # Turned until there is room: from any place some direction has it.
    for turn in range(36):
        direction = angle + turn * np.pi / 18
        there = here + length * np.array([np.cos(direction), np.sin(direction)])
        if (low <= there).all() and (there <= high).all():
            break
    return int(rng.integers(*_PUSH_START)), number, there - here


def _push(model, data, drawn, step) -> None:
    begin, number, way = drawn
    if begin <= step < begin + _PUSH_STEPS:
        # Moved rather than hit: friction would decide how far it gets.
        address = model.jnt_qposadr[model.njnt - _count_free(model) + number]
        data.qpos[address : address + 2] += way / _PUSH_STEPS


def _draw_table(model, rng, poses, ranges):
    """The table, dark grey otherwise, takes a random color."""
    del poses, ranges
    model.geom("table").rgba[:3] = rng.uniform(0.1, 0.9, 3)


VARIANTS: dict[str, Variant] = {
    "none": Variant("the scene as it is"),
    "distractors": Variant(
        "one to three colored boxes on the table",
        _add_distractors,
        _draw_distractors,
        _show_distractors,
    ),
    "light": Variant("all lights scaled by 0.3 to 1.7", draw=_draw_light),
    "interference": Variant(
        "a colored ball crosses the scene within a second",
        _add_hand,
        _draw_hand,
        _move_hand,
    ),
    "push": Variant(
        "an object is pushed by 4 to 8 cm at the beginning",
        draw=_draw_push,
        apply=_push,
    ),
    "table_color": Variant("a table of a random color", draw=_draw_table),
}


class Appearance:
    """What variants may change in a model, to be put back before every episode."""

    def __init__(self, model):
        headlight = model.vis.headlight
        self._arrays = [
            (array, np.array(array))
            for array in (
                model.light_diffuse,
                model.light_ambient,
                model.geom_rgba,
                model.geom_size,
                headlight.diffuse,
                headlight.ambient,
            )
        ]

    def restore(self) -> None:
        for array, original in self._arrays:
            array[:] = original


def _add_visual(spec, name: str, shape: str) -> None:
    """A body that is moved by hand, with one geom that touches nothing."""
    import mujoco

    kind = {"box": mujoco.mjtGeom.mjGEOM_BOX, "sphere": mujoco.mjtGeom.mjGEOM_SPHERE}
    body = spec.worldbody.add_body(name=name, mocap=True)
    body.add_geom(
        name=name,
        type=kind[shape],
        size=[_HAND] * 3,
        rgba=[0, 0, 0, 0],
        contype=0,
        conaffinity=0,
    )


def _color(rng) -> np.ndarray:
    """A bright color that is not gray: one channel high, one low."""
    return rng.permutation(
        [rng.uniform(0.7, 1), rng.uniform(0, 1), rng.uniform(0, 0.3)]
    )


def _count_free(model) -> int:
    import mujoco

    return int((model.jnt_type == mujoco.mjtJoint.mjJNT_FREE).sum())
