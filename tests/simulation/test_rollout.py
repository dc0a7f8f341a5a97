"""Closed-loop episodes with a fake environment, and once with the real one."""

import importlib.util
import multiprocessing
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.own_process import in_own_process
from tests.simulation.fake_environment import FakeAgent, FakeEnvironment
from vla_jax.simulation.ablation import ablate
from vla_jax.simulation.environment import check_rate, make_environment
from vla_jax.simulation.rollout import Episode, run_episodes
from vla_jax.simulation.workers import WorkerError

_EPISODES = [
    Episode(task, number, 10 * number + len(task))
    for task in ("left", "right")
    for number in range(3)
]


def _run(agent, episodes=_EPISODES, **options):
    options = {"num_workers": 2, "progress": False, **options}
    return run_episodes(agent, episodes, FakeEnvironment, **options)


def test_results_do_not_depend_on_the_number_of_workers():
    agents = [FakeAgent(skill=lambda seed: seed < 20) for _ in range(2)]
    one = _run(agents[0], num_workers=1)
    three = _run(agents[1], num_workers=3)
    assert one == three
    assert [(r.task, r.number, r.seed) for r in one] == [
        (e.task, e.number, e.seed) for e in _EPISODES
    ]
    assert [r.success for r in one] == [True, True, False] * 2
    assert [r.steps for r in one] == [6, 5, 6, 5, 5, 6]  # 6 is the horizon


class Paced(FakeAgent):
    """An agent that knows the rate it was trained for."""

    def __init__(self, control_hz):
        super().__init__()
        self.control_hz = control_hz


def test_an_environment_of_another_rate_is_refused_with_the_remedy():
    assert len(_run(Paced(20.0), _EPISODES[:1], num_workers=1)) == 1
    with pytest.raises(WorkerError, match=r"at 40 Hz.*at 20 Hz.*target_hz=20"):
        _run(Paced(40.0), _EPISODES[:1], num_workers=1)


def test_an_ablated_agent_keeps_its_rate():
    ablated = ablate(Paced(40.0), "images", [("left one",)])
    with pytest.raises(WorkerError, match="trained to act at 40 Hz"):
        _run(ablated, _EPISODES[:1], num_workers=1)


def test_rates_may_be_off_by_a_quarter():
    environment = FakeEnvironment("left")
    for control_hz in (15.0, 20.0, 25.0):
        check_rate(environment, control_hz)
    for control_hz in (14.9, 25.1, 80.0):
        with pytest.raises(ValueError, match="task 'left' is controlled at 20 Hz"):
            check_rate(environment, control_hz)


def test_the_agent_is_asked_once_for_all_environments():
    agent = FakeAgent()
    _run(agent, num_workers=3)
    assert agent.calls[0] == [0, 1, 2]
    assert all(call == sorted(set(call)) for call in agent.calls)


def test_an_episode_ends_at_success_or_at_the_horizon():
    able = FakeAgent(skill=lambda seed: seed < 20)
    results = _run(able)
    for result in results:
        if result.success:
            assert 0 < result.steps <= 6
        else:
            assert result.steps == 6
    assert not any(r.success for r in results if r.seed >= 20)
    position = np.random.default_rng(results[0].seed).uniform(0.5, 3)
    assert results[0].steps == int(np.ceil((position - 0.1) / 0.5))
    assert results[0].instruction == "left one"


def test_pictures_are_rendered_only_where_the_agent_looks():
    # The agent itself checks that `image` is empty in between.
    assert _run(FakeAgent(look_every=3)) == _run(FakeAgent())


def test_a_dying_worker_names_task_and_seed_and_keeps_what_was_played():
    kept = []
    episodes = [*_EPISODES[:2], Episode("die", 4, 77)]
    with pytest.raises(WorkerError, match=r"task 'die', episode 4, seed 77 died"):
        _run(FakeAgent(), episodes, num_workers=1, on_result=kept.append)
    assert [(r.task, r.number) for r in kept] == [("left", 0), ("left", 1)]
    assert multiprocessing.active_children() == []


def test_an_error_in_the_environment_reaches_the_caller():
    with pytest.raises(WorkerError, match=r"(?s)task 'raise'.*the table fell over"):
        _run(FakeAgent(), [Episode("raise", 0, 1)])


def test_an_interrupted_rollout_leaves_neither_process_nor_memory():
    def stop(result):
        raise KeyboardInterrupt

    before = set(Path("/dev/shm").glob("psm_*"))
    with pytest.raises(KeyboardInterrupt):
        _run(FakeAgent(), on_result=stop)
    assert multiprocessing.active_children() == []
    assert set(Path("/dev/shm").glob("psm_*")) <= before


def test_videos_are_written_where_asked_for(tmp_path):
    av = pytest.importorskip("av")

    def path(episode):
        return tmp_path / "first.mp4" if episode == _EPISODES[0] else None

    results = _run(FakeAgent(), video_path=path)
    assert [p.name for p in tmp_path.iterdir()] == ["first.mp4"]
    with av.open(str(tmp_path / "first.mp4")) as video:
        frames = list(video.decode(video=0))
    steps = results[0].steps
    # Every second step and the last one, then half a second at 10 frames per second.
    assert len(frames) == steps // 2 + 1 + steps % 2 + 5
    assert frames[0].width == 256 and frames[0].height > 256


@pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None, reason="metaworld is not installed"
)
@in_own_process
def test_metaworld_plays_in_workers():
    folder = Path(tempfile.mkdtemp())
    agent = _Still()
    results = run_episodes(
        agent,
        [Episode("reach", 0, 3), Episode("drawer-open", 1, 3)],
        partial(make_environment, "metaworld", image_size=(16, 24), horizon=2),
        num_workers=2,
        video_path=lambda e: folder / "a.mp4" if e.number == 0 else None,
        progress=False,
    )
    assert [(r.success, r.steps) for r in results] == [(False, 2), (False, 2)]
    assert [p.name for p in folder.iterdir()] == ["a.mp4"]
    here = make_environment("metaworld", "reach", image_size=(16, 24), horizon=2)
    expected = here.reset(3)
    here.close()
    shutil.rmtree(folder)
    shown = next(o for o in agent.shown if len(o["image"]) == 2)
    for camera in ("primary", "wrist"):
        np.testing.assert_array_equal(shown["image"][camera], expected["image"][camera])


class _Still:
    """Stands still and keeps what it was shown."""

    cameras = ("primary", "wrist")
    image_size = (16, 24)

    def __init__(self):
        self.shown = []

    def reset(self, slot, seed):
        pass

    def needs_image(self, slot):
        return True

    def act(self, slots, observations, instructions):
        self.shown += observations
        return np.zeros((len(slots), 4), np.float32)
