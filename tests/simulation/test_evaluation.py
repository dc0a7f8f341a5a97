"""Intervals, tests of significance, and evaluations that continue."""

import json

import numpy as np
import pytest

from tests.simulation.fake_environment import (
    FakeAgent,
    FakeEnvironment,
    PointAgent,
    StagedEnvironment,
)
from vla_jax.simulation.ablation import ablate
from vla_jax.simulation.environment import episode_seed
from vla_jax.simulation.evaluation import (
    compare,
    evaluate,
    format_comparison,
    format_table,
    summarize,
)
from vla_jax.simulation.intervals import mcnemar, wilson_interval, z_score
from vla_jax.simulation.rollout import Result
from vla_jax.simulation.workers import WorkerError


def _evaluate(
    agent, out, tasks=("left", "right"), episodes=3, settings=None, **options
):
    return evaluate(
        agent,
        out,
        tasks,
        FakeEnvironment,
        episodes=episodes,
        seed=5,
        settings=settings or {"checkpoint": "a"},
        progress=False,
        **options,
    )


def _results(outcomes):
    return [
        Result("left", number, 100 + number, "go left", success, 4)
        for number, success in enumerate(outcomes)
    ]


def test_wilson_interval_matches_published_values():
    # Newcombe (1998), table I, method 3.
    np.testing.assert_allclose(wilson_interval(81, 263), (0.2553, 0.3662), atol=5e-5)
    np.testing.assert_allclose(wilson_interval(15, 148), (0.0624, 0.1605), atol=5e-5)
    np.testing.assert_allclose(wilson_interval(0, 20), (0.0, 0.1611), atol=5e-5)
    np.testing.assert_allclose(wilson_interval(29, 29), (0.8830, 1.0), atol=5e-5)


def test_impossible_counts_are_refused():
    for k, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="impossible"):
            wilson_interval(k, n)
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 2)


def test_mcnemar_is_the_two_sided_binomial_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(1, 1) == 1
    assert mcnemar(0, 5) == mcnemar(5, 0) == 2 / 32
    assert mcnemar(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_a_report_counts_every_task_and_averages_over_tasks():
    results = [*_results([True, False, True]), Result("up", 0, 9, "go up", False, 6)]
    report = summarize(results)
    assert report["tasks"]["left"]["successes"] == 2
    assert report["tasks"]["left"]["episodes"] == 3
    assert report["tasks"]["left"]["interval"] == list(
        wilson_interval(2, 3, z_score(0.95))
    )
    assert report["mean_success"] == pytest.approx((2 / 3 + 0) / 2)
    assert report["episodes"][3] == {
        "task": "up",
        "number": 0,
        "seed": 9,
        "instruction": "go up",
        "success": False,
        "steps": 6,
        "stage": None,
        "held": None,
        "start": None,
        "metrics": {},
        "chain": None,
    }
    assert {"python", "jax", "numpy", "mujoco", "metaworld", "vla_jax"} <= set(
        report["versions"]
    )
    table = format_table(report)
    assert "66.7%" in table and "2/3" in table and "all tasks" in table


def test_episodes_begin_in_fixed_states_as_long_as_there_are_some(tmp_path):
    class Agent(FakeAgent):
        def act(self, slots, observations, instructions):
            return np.zeros((len(slots), 2), np.float32)

    report = _evaluate(Agent(), tmp_path, ["left"], fixed_starts=2, num_workers=1)
    seeds = [episode_seed("evaluate", 5, "left", number) for number in range(3)]
    assert [episode["seed"] for episode in report["episodes"]] == seeds
    # The fake environment draws the phrasing from the parity of the seed.
    words = ["left one", "left two", ("left one", "left two")[seeds[2] % 2]]
    assert [episode["instruction"] for episode in report["episodes"]] == words


def test_a_confidence_of_99_percent_reproduces_published_intervals():
    assert z_score(0.95) == pytest.approx(1.96, abs=1e-3)
    assert z_score(0.99) == pytest.approx(2.576, abs=1e-3)
    # MSACT's table: 53.00 % and 23.25 % of 400 trials.
    for k, low, high in ((212, 46.58, 59.33), (93, 18.27, 29.10)):
        interval = np.multiply(wilson_interval(k, 400, z_score(0.99)), 100)
        np.testing.assert_allclose(interval, (low, high), atol=0.006)
    for confidence in (0, 1, 95):
        with pytest.raises(ValueError, match=f"confidence is {confidence}"):
            z_score(confidence)


def test_a_report_counts_stages_and_averages_metrics():
    results = [
        Result("up", 0, 1, "go", True, 5, stage=2, held=True, metrics={"drift": 3.0}),
        Result("up", 1, 2, "go", True, 4, stage=2, held=False, metrics={"locked": 0.0}),
        Result("up", 2, 3, "go", False, 6, stage=1, held=False, metrics={"drift": 4.0}),
        Result("up", 3, 4, "go", False, 6, stage=0, held=False),
    ]
    report = summarize(results, 0.99, {"up": ("near", "there")})
    row = report["tasks"]["up"]
    assert {name: v["reached"] for name, v in row["stages"].items()} == {
        "near": 3,
        "there": 2,
    }
    z = z_score(0.99)
    assert row["stages"]["near"]["interval"] == list(wilson_interval(3, 4, z))
    assert row["interval"] == list(wilson_interval(2, 4, z))
    assert row["held"] == 1
    assert row["metrics"] == {"drift": 3.5, "locked": 0.0}
    table = format_table(report)
    assert "99 % interval" in table
    assert "up: near 3, there 2, solved in the last state 1" in table
    assert "up: drift 3.5, locked 0" in table


def test_points_stages_and_starts_are_evaluated(tmp_path):
    options = dict(
        episodes=2, seed=5, settings={}, num_videos=1, num_workers=1, progress=False
    )
    report = evaluate(
        PointAgent(), tmp_path, ["left"], StagedEnvironment, whole=True, **options
    )
    first, second = report["episodes"]
    assert first["stage"] == 2 and first["success"] and first["held"]
    assert first["steps"] < 6  # the horizon, to which it plays on
    assert first["start"] != second["start"]
    # The agent points exactly at the object.
    assert first["metrics"]["locked"] == 1.0
    assert first["metrics"]["drift"] == pytest.approx(0, abs=1e-3)
    names = [path.name for path in (tmp_path / "points").iterdir()]
    assert names == ["left-000.npz"]
    with np.load(tmp_path / "points" / "left-000.npz") as track:
        assert track["points"].shape == (6, 1, 2)
        assert track["cameras"].tolist() == ["primary"]
        np.testing.assert_allclose(
            track["points"][:, 0], track["objects/primary"][:, 0], atol=1e-4
        )


def test_pairs_must_begin_alike():
    reports = []
    for start in ([[0.0] * 7], [[1.0] * 7]):
        reports.append(summarize([Result("up", 0, 1, "go", True, 5, start=start)]))
    assert compare(reports[0], reports[0])["all tasks"]["both"] == 1
    with pytest.raises(ValueError, match="began with the objects at"):
        compare(*reports)


def test_an_evaluation_writes_every_episode_with_its_pinned_seed(tmp_path):
    report = _evaluate(FakeAgent(), tmp_path, num_videos=1)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == report
    assert [e["seed"] for e in report["episodes"][:3]] == [
        episode_seed("evaluate", 5, "left", number) for number in range(3)
    ]
    videos = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert videos == ["left-000.mp4", "right-000.mp4"]


def test_an_interrupted_evaluation_continues_and_ends_the_same(tmp_path):
    whole = _evaluate(FakeAgent(), tmp_path / "whole")
    with pytest.raises(WorkerError, match="task 'die'"):
        _evaluate(FakeAgent(), tmp_path / "part", ("left", "die"), num_workers=1)
    log = tmp_path / "part" / "episodes.jsonl"
    assert len(log.read_text().splitlines()) == 3
    with log.open("a") as file:
        file.write('{"task": "right", "num')  # killed in the middle of a line
    agent = FakeAgent()
    part = _evaluate(agent, tmp_path / "part")
    assert part == whole
    assert not any("left" in words for words in agent.told)
    again = FakeAgent()
    assert _evaluate(again, tmp_path / "part") == whole
    assert again.calls == []


def test_more_episodes_extend_an_evaluation(tmp_path):
    _evaluate(FakeAgent(), tmp_path, ("left",), episodes=2)
    agent = FakeAgent()
    report = _evaluate(agent, tmp_path, ("left",), episodes=3)
    assert len(report["episodes"]) == 3
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 3


def test_results_of_other_settings_are_refused(tmp_path):
    _evaluate(FakeAgent(), tmp_path, ("left",), episodes=1)
    with pytest.raises(ValueError, match=r"checkpoint \(there 'a', now 'b'\)"):
        _evaluate(FakeAgent(), tmp_path, settings={"checkpoint": "b"})
    with pytest.raises(ValueError, match="episodes is 0"):
        _evaluate(FakeAgent(), tmp_path, episodes=0)


def test_a_comparison_pairs_identical_episodes():
    first = summarize(_results([True, True, False, True, True]))
    second = summarize(_results([True, False, False, False, False]))
    rows = compare(first, second)
    assert rows["left"] == {
        "both": 1,
        "only_first": 3,
        "only_second": 0,
        "neither": 1,
        "p": mcnemar(3, 0),
    }
    assert list(rows) == ["left", "all tasks"]
    text = format_comparison(rows, ["runs/a", "runs/b"])
    assert "runs/b" in text and "0.25" in text
    with pytest.raises(ValueError, match="different episodes"):
        compare(first, summarize(_results([True])))


def test_ablations_change_what_the_agent_is_shown_or_told():
    class Listener:
        cameras, image_size = ("primary",), (2, 2)

        def act(self, slots, observations, instructions):
            self.shown, self.told = observations, instructions

    tasks = [("open it", "pull it"), ("close it", "push it")]
    observation = {"image": {"primary": np.ones((2, 2, 3), np.uint8)}, "proprio": 1}
    listener = Listener()
    assert ablate(listener, "nothing", tasks) is listener
    ablate(listener, "images", tasks).act([0], [observation], ["open it"])
    assert listener.shown[0]["image"]["primary"].max() == 0
    assert listener.shown[0]["proprio"] == 1 and listener.told == ["open it"]
    assert observation["image"]["primary"].min() == 1
    ablate(listener, "language", tasks).act([0], [observation], ["open it"])
    assert listener.told == [""] and listener.shown == [observation]
    ablate(listener, "wrong_language", tasks).act([0], [observation], ["pull it"])
    assert listener.told == ["push it"]
    with pytest.raises(ValueError, match="at least two tasks"):
        ablate(listener, "wrong_language", tasks[:1])
    with pytest.raises(ValueError, match=r"'sound'.*language"):
        ablate(listener, "sound", tasks)
