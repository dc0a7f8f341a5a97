"""Controllers, with a server whose actions tell which question they answer."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from vla_jax.client.connection import ServerError
from vla_jax.client.robot import ChunkController, RealtimeController


class Server:
    """Action k of the chunk for the observation `x` is `10 * x + k`."""

    def __init__(self, window=1, chunk=4, **metadata):
        schema = {"window": window, "chunk": chunk, "action": ["relative"]}
        optional = {"reset": {}, "seed": {}}
        self.metadata = {"schema": schema, "optional": optional, **metadata}
        self.questions = []
        self.gate = threading.Semaphore(1000)
        self.chunk = chunk

    def infer(self, observation):
        self.questions.append(observation)
        self.gate.acquire()
        x = np.ravel(observation["x"])[-1]
        if x < 0:
            raise ServerError("no")
        return {"actions": (10 * x + np.arange(self.chunk))[:, None]}


def act(robot, step):
    return float(robot.act({"x": np.array([step], np.float32)}, "go")[0])


def test_a_chunk_is_played_before_the_server_is_asked_again():
    server = Server(execute=3, ensemble=None)
    robot = ChunkController(server)
    assert [act(robot, t) for t in range(5)] == [0, 1, 2, 30, 31]
    assert [q["prompt"] for q in server.questions] == ["go", "go"]
    assert [q.get("reset") for q in server.questions] == [True, None]


def test_the_robot_may_play_otherwise_than_the_server_says():
    server = Server(execute=3)
    assert ChunkController(server, execute=1).execute == 1
    robot = ChunkController(server, ensemble=0.0)
    assert robot.execute is None
    # Step 1: the mean of 1 (first chunk) and 10 (second chunk).
    assert [act(robot, t) for t in range(2)] == [0, 5.5]


def test_reset_begins_anew_and_every_question_tells_the_seed():
    server = Server(execute=4)
    robot = ChunkController(server)
    act(robot, 0)
    robot.reset(seed=5)
    assert [act(robot, t) for t in (7, 8, 9, 10, 11)][:2] == [70, 71]
    first, second, third = server.questions
    assert "seed" not in first
    assert (second["seed"], second["reset"]) == (5, True)
    assert third["seed"] == 5 and "reset" not in third


def test_servers_of_other_makes_are_told_nothing_they_do_not_know():
    server = Server()
    server.metadata = {}
    robot = ChunkController(server)
    robot.reset(seed=5)
    act(robot, 0)
    assert set(server.questions[0]) == {"x", "prompt"}


def test_history_is_collected_at_every_step_and_sent_as_a_window():
    server = Server(window=3, execute=2)
    robot = ChunkController(server)
    for step in range(5):
        assert robot.needs_observation
        act(robot, step)
    windows = [q["x"][:, 0].tolist() for q in server.questions]
    assert windows == [[0], [0, 1, 2], [2, 3, 4]]


def test_realtime_asks_while_it_plays_and_never_waits():
    server = Server(chunk=6)
    with RealtimeController(server, execute=2, blend=0) as robot:
        played = []
        for step in range(6):
            if step == 2:
                server.gate = threading.Semaphore(0)  # the next answer takes a while
            if step == 4:
                server.gate.release()
                robot._pending[1].result()
            played.append(act(robot, step))
        # The answer to step 2 comes at step 4, its first two actions are past.
        assert played == [0, 1, 2, 3, 22, 23]
        assert (robot.starved, robot.late) == (0, 0)
        server.gate.release(5)


def test_realtime_waits_only_when_its_plan_has_run_out():
    server = Server(chunk=2)
    with RealtimeController(server, execute=2, blend=0) as robot:
        played = [act(robot, 0), act(robot, 1)]
        server.gate = threading.Semaphore(0)
        timer = threading.Timer(0.1, server.gate.release, (5,))
        timer.start()
        played.append(act(robot, 2))
        assert played == [0, 1, 20] and robot.starved == 1
        timer.join()


def test_realtime_blends_the_overlap():
    server = Server(chunk=4)
    with RealtimeController(server, execute=1, blend=1) as robot:
        assert act(robot, 0) == 0
        robot._asked = -9
        act(robot, 1)
        robot._pending[1].result()
        # At step 2: the old plan says 2, the chunk of step 1 says 11: half of each.
        assert act(robot, 2) == pytest.approx(6.5)


def test_realtime_tells_an_error_and_forgets_it_with_the_episode():
    server = Server(chunk=2)
    with RealtimeController(server) as robot:
        with pytest.raises(ServerError, match="no"):
            act(robot, -1)
        robot.reset()
        assert act(robot, 3) == 30


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="execute is 0"):
        RealtimeController(Server(), execute=0)
    with pytest.raises(ValueError, match="execute=9 must lie between 1 and the chunk"):
        act(ChunkController(Server(), execute=9), 0)


def test_the_client_loads_no_jax():
    code = (
        "import vla_jax.client.agent, vla_jax.client.robot, sys\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"numpy", "msgpack", "websockets"} <= loaded
    assert not loaded & {"jax", "flax", "PIL", "sentencepiece"}
