"""Worker processes end whatever happens to them or to their parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.simulation.fake_environment import Echo
from vla_jax.simulation.workers import WorkerError, Workers

_ROOT = Path(__file__).parents[2]
_PARENT = """
import sys
from tests.simulation.fake_environment import Echo
from vla_jax.simulation.workers import Workers
with Workers(Echo, [()]) as workers:
    workers.submit(0, "hello", "a greeting")
    print(workers.wait()[0][1][0], flush=True)
    workers.submit(0, float(sys.argv[1]), "a nap")
    workers.wait()
"""


def test_each_worker_answers_its_own_requests():
    with Workers(Echo, [(), ()]) as workers:
        assert workers.idle == [0, 1]
        workers.submit(0, "a", "request a")
        workers.submit(1, "b", "request b")
        replies = {}
        while workers.busy:
            replies.update(workers.wait())
        assert [replies[n][1] for n in (0, 1)] == ["a", "b"]
        assert replies[0][0] != replies[1][0] != os.getpid()
    assert multiprocessing.active_children() == []


def test_a_killed_worker_is_an_error_that_names_its_request():
    with Workers(Echo, [()]) as workers:
        workers.submit(0, "hello", "a greeting")
        process = psutil.Process(workers.wait()[0][1][0])
        workers.submit(0, 60, "task 'reach', seed 3")
        process.kill()
        with pytest.raises(WorkerError, match=r"task 'reach', seed 3 died.*SIGKILL"):
            workers.wait()
    assert multiprocessing.active_children() == []


def test_an_error_inside_leaves_no_process_even_when_workers_are_busy():
    start = time.monotonic()
    with pytest.raises(KeyError), Workers(Echo, [(), ()]) as workers:
        workers.submit(0, "hello", "a greeting")
        workers.wait()
        workers.submit(0, 60, "a nap")
        raise KeyError
    assert multiprocessing.active_children() == []
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("number", "code", "nap"),
    [
        (signal.SIGTERM, 143, 60),
        (signal.SIGINT, -signal.SIGINT, 60),
        # A killed parent ends nobody; its worker notices when it wants to reply.
        (signal.SIGKILL, -signal.SIGKILL, 2),
    ],
)
def test_workers_end_with_their_parent(number, code, nap):
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(nap)],
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.2)
    parent.send_signal(number)
    assert parent.wait(30) == code
    worker.wait(30)
