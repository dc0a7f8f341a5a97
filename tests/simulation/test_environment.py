"""Meta-World through the standard interface: seeds, conventions and pictures."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

# Not importorskip: that would import MuJoCo before its OpenGL backend is chosen.
if importlib.util.find_spec("metaworld") is None:
    pytest.skip("metaworld is not installed", allow_module_level=True)

from tests.own_process import in_own_process
from vla_jax.simulation.environment import (
    check_tasks,
    episode_seed,
    list_tasks,
    make_environment,
)
from vla_jax.simulation.instructions import INSTRUCTIONS
from vla_jax.simulation.rendering import project

_DIGEST = """
import numpy as np
from vla_jax.simulation.environment import make_environment
environment = make_environment("metaworld", "push", cameras=())
environment.reset(11)
for _ in range(5):
    observation, reward, _ = environment.step(environment.expert_action())
print(repr((observation["proprio"].tolist(), reward, environment.instruction)))
"""


def _play(environment, seed, num_steps=5):
    observation = environment.reset(seed)
    values = [environment._full.copy()]
    for _ in range(num_steps):
        observation, reward, _ = environment.step(environment.expert_action())
        values.append(np.append(environment._full, reward))
    return np.concatenate(values), observation, environment.instruction


def test_metaworld_has_fifty_tasks_with_several_distinct_phrasings():
    tasks = list_tasks("metaworld")
    assert len(tasks) == 50
    seen = {}
    for task in tasks:
        phrasings = INSTRUCTIONS[task]
        assert len(set(phrasings)) >= 4
        for phrasing in phrasings:
            assert seen.setdefault(phrasing, task) == task
            assert phrasing.isascii() and phrasing == phrasing.lower().strip()


def test_the_seed_alone_pins_the_episode():
    environment = make_environment("metaworld", "pick-place", cameras=())
    first, _, words = _play(environment, seed=11)
    other, _, _ = _play(environment, seed=12, num_steps=30)
    again, _, words_again = _play(environment, seed=11)
    np.testing.assert_array_equal(first, again)
    assert words == words_again
    assert not np.array_equal(first[:39], other[:39])


def test_another_process_gets_the_same_episode():
    environment = make_environment("metaworld", "push", cameras=())
    environment.reset(11)
    for _ in range(5):
        observation, reward, _ = environment.step(environment.expert_action())
    here = (observation["proprio"].tolist(), reward, environment.instruction)
    there = subprocess.run(
        [sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == repr(here)


def test_seeds_vary_the_goal_of_every_kind_of_task():
    for task in ("reach", "drawer-open", "button-press-topdown"):
        environment = make_environment("metaworld", task, cameras=())
        goals = set()
        for seed in range(3):
            environment.reset(seed)
            goals.add(tuple(environment._full))
        assert len(goals) == 3


def test_phrasings_vary_with_the_seed():
    environment = make_environment("metaworld", "drawer-open", cameras=())
    words = set()
    for seed in range(20):
        environment.reset(seed)
        words.add(environment.instruction)
    assert words == set(environment.instructions)


def test_gripper_one_is_open_and_zero_is_closed():
    environment = make_environment("metaworld", "reach", cameras=())
    np.testing.assert_array_equal(
        environment.native_action(np.array([0.5, -3.0, 0.0, 1.0])), [0.5, -1, 0, -1]
    )
    np.testing.assert_allclose(
        environment.native_action(np.array([0.0, 0.0, 0.0, 0.0])), [0, 0, 0, 0.6]
    )
    openings = []
    for gripper in (1.0, 0.0):
        environment.reset(0)
        for _ in range(20):
            observation, _, _ = environment.step(np.array([0, 0, 0, gripper]))
        openings.append(observation["proprio"][3])
    # An effort of 0.6 closes the empty fingers to 0.315, one of 1 to 0.288.
    np.testing.assert_allclose(openings, [1.0, 0.315], atol=0.005)


def test_the_expert_opens_the_drawer_within_the_horizon():
    environment = make_environment("metaworld", "drawer-open", cameras=())
    environment.reset(0)
    for _ in range(environment.horizon):
        _, _, success = environment.step(environment.expert_action())
        if success:
            return
    raise AssertionError("the scripted expert failed")


@in_own_process
def test_pictures_are_upright_and_rendered_only_when_asked_for():
    environment = make_environment(
        "metaworld", "button-press-topdown", image_size=48, cameras=("primary",)
    )
    observation = environment.reset(3)
    assert list(observation["image"]) == ["primary"]
    picture = observation["image"]["primary"]
    assert picture.shape == (48, 48, 3) and picture.dtype == np.uint8
    # The red button stands on top of the yellow box.
    yellow = (picture[..., 0] > 150) & (picture[..., 2] < 50) & (picture[..., 1] > 90)
    red = (picture[..., 0] > 130) & (picture[..., 1] < 40)
    box = np.argwhere(yellow)
    right = red[:, box[:, 1].min() : box[:, 1].max() + 1]
    assert np.argwhere(right)[:, 0].min() < box[:, 0].min()
    skipped, _, _ = environment.step(np.zeros(4), render=False)
    assert skipped["image"] == {}
    environment.close()


@in_own_process
def test_the_goal_is_where_its_projection_says():
    for primary in ("topview", "corner2"):  # upright and turned
        environment = make_environment(
            "metaworld",
            "reach",
            image_size=(120, 160),
            cameras=("primary",),
            primary=primary,
        )
        simulator = environment._simulator
        seen = environment.reset(3)["image"]["primary"].astype(int)
        simulator.model.site("goal").rgba[3] = 0  # invisible
        gone = environment.reset(3)["image"]["primary"].astype(int)
        rows, columns = np.nonzero(np.abs(seen - gone).sum(-1) > 20)
        matrices = environment.camera_matrices("primary")
        pixel = project(simulator.data.site("goal").xpos, *matrices)
        np.testing.assert_allclose(pixel - 0.5, [columns.mean(), rows.mean()], atol=1)
        environment.close()


@in_own_process
def test_pictures_do_not_depend_on_what_was_rendered_before():
    environment = make_environment("metaworld", "door-open", image_size=24)
    first = environment.reset(5)["image"]
    for _ in range(3):
        environment.step(environment.expert_action(), render=False)
    environment.reset(6)
    again = environment.reset(5)["image"]
    for camera in ("primary", "wrist"):
        np.testing.assert_array_equal(first[camera], again[camera])
    environment.close()


def test_mistakes_are_named_with_the_alternatives():
    with pytest.raises(ValueError, match=r"Unknown environment 'mujoco'.*metaworld"):
        make_environment("mujoco", "reach")
    with pytest.raises(ValueError, match=r"Unknown metaworld task 'opn'.*door-open"):
        make_environment("metaworld", "opn")
    with pytest.raises(ValueError, match=r"Unknown camera 'left'.*wrist"):
        make_environment("metaworld", "reach", cameras=("left",))
    with pytest.raises(ValueError, match=r"primary camera 'front'.*corner2"):
        make_environment("metaworld", "reach", primary="front")
    with pytest.raises(ValueError, match="named twice"):
        check_tasks("metaworld", ["reach", "reach"])
    environment = make_environment("metaworld", "reach", cameras=())
    with pytest.raises(ValueError, match="before reset"):
        environment.step(np.zeros(4))
    environment.reset(0)
    with pytest.raises(ValueError, match=r"shape \(7,\).*\(4,\)"):
        environment.step(np.zeros(7))
    with pytest.raises(ValueError, match="not finite"):
        environment.step(np.array([0, 0, np.nan, 1]))


def test_episode_seeds_differ_by_purpose_task_and_number():
    seeds = {
        episode_seed(purpose, seed, task, number)
        for purpose in ("collect", "evaluate")
        for seed in (0, 7)
        for task in ("reach", "push")
        for number in range(10)
    }
    assert len(seeds) == 80
    assert episode_seed("collect", 0, "reach", 0) == 1300498137


@pytest.mark.parametrize("task", ["pick-place", "box-close", "hammer"])
def test_an_expert_opens_the_gripper_or_closes_it(task):
    """Their own efforts are 0 and 0.9, 0.5 and 1, 0 and 0.8."""
    environment = make_environment("metaworld", task, cameras=())
    environment.reset(1)
    seen = []
    for _ in range(100):
        action = environment.expert_action()
        seen.append(float(action[3]))
        environment.step(action)
    assert seen[0] == 1.0 and set(seen) == {0.0, 1.0}


def test_a_gentle_grip_stays_between_open_and_closed():
    environment = make_environment("metaworld", "pick-out-of-hole", cameras=())
    environment.reset(1)
    np.testing.assert_allclose(environment.expert_action()[3], 0.375)  # effort 0
