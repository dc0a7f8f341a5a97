"""The script reaches its goals in a world without physics."""

import numpy as np
import pytest

from tests.simulation.libero.shapes import boxes
from vla_jax.simulation.libero.expert import ORDER, Expert, _turn
from vla_jax.simulation.libero.grasp import turned

_SIZES = {"can": (0.02, 0.03, 0.05), "box": (0.02, 0.02, 0.02)}


class _World:
    """A floor with a can, a box and a shelf; the hand carries what it closes on."""

    def __init__(self, goals):
        self.goals = goals
        self.hand, self.hand_rotation = np.array([0, 0, 0.3]), turned(0.4)
        self.places = {
            "can": np.array([0.1, 0.1, 0.05]),
            "box": np.array([0, -0.1, 0.02]),
        }
        self.held, self.fumbles, self.open = None, 0, True

    def play(self, action):
        """A fifth of what is asked for, as a sluggish arm does."""
        assert np.abs(action).max() <= 1
        moved = 0.05 * action[:3] / 5
        self.hand = self.hand + moved
        self.hand_rotation = _rotation(0.5 * action[3:6] / 5) @ self.hand_rotation
        closing, self.open = self.open and action[6] == 0, action[6] == 1
        if closing and self.fumbles == 0:
            near = {n: np.linalg.norm(p - self.hand) for n, p in self.places.items()}
            self.held = min(near, key=near.get)
            assert near[self.held] < 0.04
        elif closing:
            self.fumbles -= 1
        if self.open and self.held is not None:
            self.places[self.held][2] = self._floor() + _SIZES[self.held][2]
            self.held = None
        if self.held is not None:
            self.places[self.held] = self.places[self.held] + moved

    def _floor(self):
        x, y, _ = self.places[self.held]
        return 0.1 if abs(x - 0.3) < 0.1 and abs(y) < 0.1 else 0.0

    def shape(self, name):
        return boxes([_SIZES[name]], [self.places[name]])

    def obstacles(self, *names):
        return [self.shape(name) for name in self.places if name not in names]

    def is_object(self, name):
        return name in self.places

    def owner(self, name):
        return None

    def drawer(self, name):
        return 7 if name == "drawer" else None

    def site(self, name):
        return np.array([0.3, 0, 0.1])

    def region(self, name):
        return self.site(name), np.array([0.08, 0.08, 0])

    def fulfilled(self, goals):
        return all(self._on_shelf(goal[1]) for goal in goals)

    def _on_shelf(self, name):
        x, y, z = self.places[name]
        free = self.held != name
        return free and abs(x - 0.3) < 0.08 and abs(y) < 0.08 and z > 0.1


def _rotation(turn):
    angle = np.linalg.norm(turn) + 1e-12
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _play(world, steps=600):
    expert = Expert(world)
    actions = []
    while not world.fulfilled(world.goals):
        assert len(actions) < steps, "the goal was not reached"
        actions.append(expert.action())
        world.play(actions[-1])
    return np.array(actions), expert


def test_two_objects_are_put_beside_each_other():
    world = _World([["on", "can", "shelf"], ["on", "box", "shelf"]])
    _play(world)
    can, box = world.places["can"], world.places["box"]
    assert np.abs(can[:2] - box[:2]).max() > 0.06


def test_a_grasp_that_fails_is_tried_again():
    clean, _ = _play(_World([["on", "can", "shelf"]]))
    world = _World([["on", "can", "shelf"]])
    world.fumbles = 1
    again, _ = _play(world)
    assert len(again) > len(clean)
    # It closes twice: once in vain.
    assert (np.diff(again[:, 6]) == -1).sum() == 2


def test_what_falls_down_again_is_picked_up_again():
    world = _World([["on", "can", "shelf"]])
    _, expert = _play(world)
    world.places["can"] = np.array([0.1, -0.2, 0.05])
    for _ in range(400):
        world.play(expert.action())
        if world.fulfilled(world.goals):
            return
    raise AssertionError("the can was left on the floor")


def test_no_step_is_idle_until_the_goal_is_reached():
    actions, _ = _play(_World([["on", "can", "shelf"], ["on", "box", "shelf"]]))
    still = np.linalg.norm(actions[:, :6], axis=1) < 1e-4
    same = np.r_[False, np.diff(actions[:, 6]) == 0]
    assert not (still & same).any()


def test_a_goal_that_no_skill_reaches_is_named():
    with pytest.raises(ValueError, match=r"No skill reaches the goal \['open', 'door'"):
        Expert(_World([["open", "door"]]))
    Expert(_World([["open", "drawer"]]))


def test_what_is_shut_in_the_end_is_shut_last():
    goals = [["close", "x"], ["in", "a", "x"], ["turnon", "y"], ["open", "z"]]
    kinds = [kind for kind, *_ in sorted(goals, key=lambda g: ORDER.index(g[0]))]
    assert kinds == ["turnon", "open", "in", "close"]


@pytest.mark.parametrize(
    "turn", [(0, 0, 0), (0.3, -0.2, 0.5), (0, 0, 3.1), (1e-8, 0, 0), (0, np.pi, 0)]
)
def test_the_turn_between_two_rotations(turn):
    present = turned(0.7)
    found = _turn(present, _rotation(np.array(turn)) @ present)
    if np.linalg.norm(turn) == np.pi:  # either way round
        found = np.abs(found)
    np.testing.assert_allclose(found, turn, atol=1e-6)
