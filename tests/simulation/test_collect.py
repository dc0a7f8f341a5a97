"""Demonstrations: what is recorded, and a data set that depends on the seed alone."""

import importlib.util
import json

import numpy as np
import pytest

from tests.simulation.fake_environment import FakeEnvironment
from vla_jax.data.rlds import episode_from_record, open_rlds
from vla_jax.data.standardize import resolve_spec
from vla_jax.data.tfrecord import iterate_records
from vla_jax.simulation.collect import Rehearser, _fingerprint, collect, rehearse
from vla_jax.simulation.demonstration import Recipe, collect_episode
from vla_jax.simulation.environment import NoSkill, episode_seed, make_environment


def _as_it_is(name, feature, image):
    del name, feature
    return image


def _needs_metaworld():
    if importlib.util.find_spec("metaworld") is None:
        pytest.skip("metaworld is not installed")


def _episodes(folder, split):
    data = open_rlds(folder)
    for shard in data.splits[split]:
        with open(shard.path, "rb") as file:
            content = memoryview(file.read())
        for _, payload in iterate_records(content, str(shard.path)):
            yield episode_from_record(payload, data.features), payload


def test_an_episode_holds_the_steps_to_success_and_the_hold_steps():
    environment = FakeEnvironment("left")
    steps, metadata = collect_episode(
        environment, Recipe(hold_steps=0), 3, encode=_as_it_is
    )
    seed = episode_seed("collect", 0, "left", 3)
    assert metadata == {"task": "left", "seed": seed, "attempt": 3, "success": True}
    length = len(steps["action"])
    position = np.random.default_rng(seed).uniform(0.5, 3)
    assert length == int(np.ceil((position - 0.1) / 0.5))
    held, _ = collect_episode(environment, Recipe(hold_steps=2), 3, encode=_as_it_is)
    assert len(held["action"]) == length + 2
    np.testing.assert_array_equal(held["action"][:length], steps["action"])
    assert steps["observation"]["state"][:, 1].tolist() == list(range(length))
    assert steps["observation"]["image"][1][0, 1, 0] == 1
    assert steps["observation"]["wrist_image"][1][0, 2, 0] == 1
    assert set(steps["language_instruction"]) <= set(environment.instructions)
    assert steps["is_first"].tolist() == [True] + [False] * (length - 1)
    assert steps["is_last"].tolist() == [False] * (length - 1) + [True]
    assert steps["is_terminal"].tolist() == [False] * (length - 1) + [True]
    assert steps["discount"].tolist() == [1.0] * (length - 1) + [0.0]
    # In the simulator's own units: 0.25 open is an effort of 0.5.
    assert steps["action"][:, 1].tolist() == [0.5] * length


def test_a_failed_attempt_is_not_terminal():
    steps, metadata = collect_episode(
        FakeEnvironment("left", horizon=1), Recipe(), 3, encode=_as_it_is
    )
    assert not metadata["success"]
    assert len(steps["action"]) == 1
    assert steps["is_last"].tolist() == [True]
    assert steps["is_terminal"].tolist() == [False]


def test_noise_is_executed_but_the_clean_action_is_recorded():
    environment = FakeEnvironment("left", horizon=4)
    recipe = Recipe(action_noise=1.0, hold_steps=0)
    steps, _ = collect_episode(environment, recipe, 3, encode=_as_it_is)
    executed = np.array(environment.executed)
    expert = np.clip(-2 * steps["observation"]["state"][:, 0], -1, 1)
    np.testing.assert_array_equal(steps["action"][:, 0], expert)
    assert np.abs(executed[:, 0] - expert).max() > 0.01
    np.testing.assert_array_equal(executed[:, 1], steps["action"][:, 1])
    again, _ = collect_episode(environment, recipe, 3, encode=_as_it_is)
    np.testing.assert_array_equal(again["action"], steps["action"])


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"Unknown metaworld task 'opn'"):
        collect(tmp_path, ["opn"])
    with pytest.raises(ValueError, match=r"episodes is 0"):
        collect(tmp_path, ["reach"], episodes=0)
    with pytest.raises(ValueError, match=r"action_noise is -1"):
        Recipe(action_noise=-1)
    (tmp_path / "metaworld" / "1.0.0").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"was not written by this collection"):
        collect(tmp_path, ["reach"])
    assert not (tmp_path / ".staging").exists()


def test_an_attempt_may_begin_in_a_given_state():
    _needs_metaworld()
    environment = FakeEnvironment("left")
    _, metadata = collect_episode(environment, Recipe(), 3, start=41, encode=_as_it_is)
    assert environment._seed == 41
    assert metadata["seed"] == episode_seed("collect", 0, "left", 3)
    with pytest.raises(ValueError, match="metaworld has 0 of each task"):
        rehearse(["reach"], attempts=2, fixed=True)


def test_attempts_that_recorded_other_fields_are_not_continued(monkeypatch):
    now = _fingerprint(Recipe())
    assert _fingerprint(Recipe()) == now != _fingerprint(Recipe(seed=1))
    monkeypatch.setattr("vla_jax.simulation.demonstration._WITH_MATRICES", ())
    assert _fingerprint(Recipe()) != now


def test_a_task_without_a_skill_costs_no_other_its_result(monkeypatch):
    played = {"reach": ({"action": [0, 0, 0]}, {"success": True})}

    def play(self, task, number):
        if task not in played:
            raise NoSkill(f"No skill for {task}.")
        return played[task]

    monkeypatch.setattr(Rehearser, "play", play)
    monkeypatch.setattr("vla_jax.simulation.collect.Workers", InProcess)
    monkeypatch.setattr("vla_jax.simulation.collect.require_installed", str)
    monkeypatch.setattr("vla_jax.simulation.collect.check_tasks", lambda _, t: t)
    found = rehearse(["reach", "microwave"], attempts=2, progress=False)
    assert found == {"reach": [(3, True)] * 2, "microwave": []}


class InProcess:
    """Workers that answer when they are waited for, in this process."""

    def __init__(self, make, arguments):
        self._handlers = [make(*each) for each in arguments]
        self._waiting = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def idle(self):
        return [n for n in range(len(self._handlers)) if n not in self._waiting]

    def submit(self, worker, request, name):
        del name
        self._waiting[worker] = request

    def wait(self):
        waiting, self._waiting = self._waiting, {}
        return [(n, self._handlers[n](request)) for n, request in waiting.items()]


def test_the_data_set_does_not_depend_on_the_number_of_workers(tmp_path):
    _needs_metaworld()
    recipe = Recipe(image_size=16, hold_steps=1)
    arguments = {"episodes": 2, "recipe": recipe, "progress": False}
    tasks = ["reach", "coffee-button"]
    one, report = collect(tmp_path / "one", tasks, workers=1, **arguments)
    two, other = collect(tmp_path / "two", tasks, workers=2, **arguments)
    assert report == other
    assert report["tasks"]["reach"]["kept"] == 2
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert not (tmp_path / "one" / ".staging").exists()
    # Collecting again is free; other settings are refused.
    assert collect(tmp_path / "one", tasks, workers=1, **arguments) == (one, report)
    with pytest.raises(ValueError, match=r"episodes \(there 2, now 3\)"):
        collect(tmp_path / "one", tasks, **{**arguments, "episodes": 3})
    _check_against_the_simulator(one)
    # Killed after the shards were put in place, before the report was.
    staging = tmp_path / "one" / ".staging" / _fingerprint(recipe)
    staging.mkdir(parents=True)
    (one / "collection.json").rename(staging / "collection.json")
    assert collect(tmp_path / "one", tasks, workers=1, **arguments) == (one, report)
    assert not (tmp_path / "one" / ".staging").exists()


def _check_against_the_simulator(folder):
    """What was written is what a replay of the seeds shows, in standard form."""
    spec = resolve_spec("metaworld")
    counts = {}
    for split in ("train", "val"):
        for episode, payload in _episodes(folder, split):
            task = episode.metadata["episode_metadata/task"].decode()
            counts[split, task] = counts.get((split, task), 0) + 1
            standard = spec.standardize(episode)
            environment = make_environment("metaworld", task, cameras=())
            observation = environment.reset(
                int(episode.metadata["episode_metadata/seed"])
            )
            instruction = environment.instruction
            solved = []
            for proprio, action in zip(
                standard["proprio"], standard["action"], strict=True
            ):
                np.testing.assert_array_equal(observation["proprio"], proprio)
                observation, _, success = environment.step(action)
                solved.append(success)
            assert True in solved[-2:]
            assert all(instruction in np.atleast_1d(w) for w in standard["language"])
            offset, length = episode.images["steps/observation/image"][0]
            assert bytes(payload[offset : offset + 3]) == b"\xff\xd8\xff" and length
    assert counts == {
        (split, task): 1
        for split in ("train", "val")
        for task in ("reach", "coffee-button")
    }
    assert json.loads((folder / "collection.json").read_text())["settings"]["seed"] == 0
