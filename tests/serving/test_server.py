"""The server and many, failing, slow and vanished clients."""

import concurrent.futures
import dataclasses
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.serving.fake_policy import SCHEMA, make_policy, observe, serving, tell
from vla_jax.client.connection import Connection, ServerError
from vla_jax.client.layouts import LAYOUTS
from vla_jax.client.wire import pack, unpack


@pytest.fixture(scope="module")
def url():
    with serving(make_policy()) as (_, address):
        yield address


def get(url, path, **headers):
    request = urllib.request.Request(url.replace("ws", "http", 1) + path, None, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read().decode()


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_server_speaks_first_and_answers_as_openpi_does(url):
    with connect(url, compression=None) as client:
        metadata = unpack(client.recv(timeout=10))
        assert metadata["schema"]["cameras"] == ["primary", "wrist"]
        assert metadata["observation"]["image/wrist"]["shape"] == [4, 4, 3]
        assert (
            metadata["schema"]["depth"] == [] and metadata["schema"]["matrices"] == []
        )
        for number in range(2):
            client.send(pack(observe(5.0)))
            answer = unpack(client.recv(timeout=10))
            np.testing.assert_array_equal(answer["actions"][:, 0], [5, 6, 7, 8])
            assert answer["actions"].dtype == np.float32
            assert answer["policy_timing"]["infer_ms"] > 0
            assert ("prev_total_ms" in answer["server_timing"]) == (number > 0)


def test_health_and_stats_are_plain_http(url):
    assert get(url, "/healthz") == (200, "OK\n")
    with Connection(url) as client:
        client.infer(observe())
        stats = json.loads(get(url, "/stats")[1])
    assert stats["clients"] == 1 and stats["requests"] >= 1
    assert set(stats["latency"]["total"]) == {"p50_ms", "p95_ms", "p99_ms", "count"}


def test_an_episode_counts_its_calls_until_it_is_reset_or_has_another_seed(url):
    seen = []
    with Connection(url) as client:
        for changes in ({}, {}, {"reset": True}, {"seed": 9}, {"seed": 9}, {}):
            actions = client.infer(observe(**changes))["actions"]
            seen.append(tuple(actions[0, 2:4]))
    assert seen == [(0, 0), (0, 1), (0, 0), (9, 0), (9, 1), (9, 2)]


def test_clients_do_not_share_their_episodes(url):
    with Connection(url) as one, Connection(url) as two:
        one.infer(observe(seed=1))
        assert one.infer(observe(seed=1))["actions"][0, 3] == 1
        assert two.infer(observe())["actions"][0, 2:4].tolist() == [0, 0]


def test_history_is_kept_by_the_server_or_sent_as_a_window():
    schema = dataclasses.replace(SCHEMA, window=3)
    image = np.zeros((2, 4, 4, 3), np.uint8)
    window = {
        "image/primary": image,
        "image/wrist": image,
        "proprio": np.array([[1, 0], [2, 0]], np.float32),
    }
    with (
        serving(make_policy(schema=schema)) as (_, address),
        Connection(address) as client,
    ):
        frames = [client.infer(observe())["actions"][0, 1] for _ in range(5)]
        assert frames == [1, 2, 3, 3, 3]
        whole = client.infer(observe(**window))["actions"]
        assert (whole[0, 0], whole[0, 1]) == (2, 2)
        with pytest.raises(ServerError, match="'proprio' has 4 steps"):
            client.infer(observe(proprio=np.zeros((4, 2))))
        with pytest.raises(ServerError, match="needs as many"):
            client.infer(observe(proprio=np.zeros((2, 2))))


def test_many_clients_share_calls_and_each_gets_its_own_answer():
    sizes, gate = [], threading.Event()

    def predict(inputs):
        sizes.append(len(inputs["seed"]))
        if len(sizes) > 2:  # after the warm-up; until then nobody can ask
            gate.wait(10)
        return tell(inputs)

    def ask(number):
        with Connection(address) as client:
            return [
                client.infer(observe(10.0 * number))["actions"][0, 0] for _ in range(3)
            ]

    with (
        serving(make_policy(predict)) as (server, address),
        concurrent.futures.ThreadPoolExecutor(12) as threads,
    ):
        answers = threads.map(ask, range(12))
        wait_until(lambda: server.stats()["requests"] >= 12)
        gate.set()
        assert list(answers) == [[10.0 * n] * 3 for n in range(12)]
    assert max(sizes) == 4 and sum(sizes[2:]) >= 36
    assert len(sizes) - 2 < 36  # fewer calls than requests


def test_one_failing_request_spoils_no_other_and_tells_no_traceback(caplog):
    gate = threading.Event()

    def predict(inputs):
        if inputs["proprio"].any():
            gate.wait(10)
        if (inputs["proprio"] == 13).any():
            raise RuntimeError("secret of the server")
        return tell(inputs)

    def ask(number):
        try:
            with Connection(address) as client:
                return client.infer(observe(float(number)))["actions"][0, 0]
        except ServerError as error:
            return str(error)

    with serving(make_policy(predict)) as (server, address):
        with concurrent.futures.ThreadPoolExecutor(5) as threads:
            answers = threads.map(ask, range(10, 15))
            wait_until(lambda: server.stats()["requests"] == 5)
            gate.set()
            found = list(answers)
        assert server.stats()["failed"] == 1
    assert [a for a in found if not isinstance(a, str)] == [10, 11, 12, 14]
    assert "the server's log says why under" in found[3] and "secret" not in found[3]
    assert "secret of the server" in caplog.text


def test_an_action_that_is_not_finite_never_reaches_a_robot():
    def predict(inputs):
        return tell(inputs) * np.where(inputs["proprio"].any(), np.nan, 1)

    with (
        serving(make_policy(predict)) as (_, address),
        Connection(address) as client,
        pytest.raises(ServerError, match="The policy failed"),
    ):
        client.infer(observe(1.0))


def test_vanished_and_slow_clients_hold_up_nobody():
    def predict(inputs):
        if inputs["proprio"].any():
            time.sleep(0.2)
        return tell(inputs)

    with serving(make_policy(predict), send_s=0.5) as (server, address):
        host, port = address.removeprefix("ws://").split(":")
        # One never finishes its handshake, one hangs up amid a request.
        silent = socket.create_connection((host, int(port)))
        silent.send(b"GET / HTTP/1.1\r\n")
        gone = connect(address, compression=None)
        gone.recv()
        gone.send(pack(observe(1.0)))
        gone.socket.shutdown(socket.SHUT_RDWR)
        with Connection(address) as client:
            start = time.monotonic()
            for _ in range(5):
                client.infer(observe())
            assert time.monotonic() - start < 5
        wait_until(lambda: server.stats()["clients"] == 0)
        silent.close()


def test_a_client_that_takes_no_answers_is_dropped():
    huge = np.ones((1, 4, 2_000_000), np.float32)
    policy = make_policy(lambda inputs: np.repeat(huge, len(inputs["seed"]), 0))
    with serving(policy, send_s=0.3) as (server, address):
        host, port = address.removeprefix("ws://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.send(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert client.recv(12) == b"HTTP/1.1 101"
            data = pack(observe())
            # 32 MB do not fit into the buffers of a client that reads nothing.
            client.send(b"\x82\xfe" + len(data).to_bytes(2, "big") + bytes(4) + data)
            wait_until(lambda: server.stats()["requests"] == 1)
            wait_until(lambda: server.stats()["clients"] == 0)


def test_too_many_clients_are_turned_away():
    with serving(make_policy(), max_clients=1) as (_, address), Connection(address):
        refused = pytest.raises(ServerError, match="503")
        with refused:
            Connection(address)
        assert get(address, "/healthz")[0] == 200


def test_a_key_is_asked_for_before_anything_else():
    with serving(make_policy(), api_key="secret") as (_, address):
        for key in (None, "", "secre", "secret2", "sécret"):
            headers = {"Authorization": f"Api-Key {key}"} if key is not None else {}
            with pytest.raises(InvalidStatus) as refused:
                connect(address, additional_headers=headers)
            assert refused.value.response.status_code == 401
        with pytest.raises(ServerError, match="401"):
            Connection(address, api_key="wrong")
        with Connection(address, api_key="secret") as client:
            client.infer(observe())
        assert get(address, "/healthz")[0] == 200
        with pytest.raises(urllib.error.HTTPError):
            get(address, "/stats")
        assert get(address, "/stats", Authorization="Api-Key secret")[0] == 200


def test_a_layout_renames_transposes_and_turns_the_gripper():
    chw = np.zeros((3, 8, 6), np.uint8)
    message = {
        "observation/image": chw,
        "observation/wrist_image": np.zeros((4, 4, 3), np.uint8),
        "observation/state": np.array([3.0, 0.0]),
        "prompt": "open it",
    }
    with (
        serving(make_policy(), layout=LAYOUTS["libero"]) as (_, address),
        Connection(address) as client,
    ):
        assert "observation/state" in client.metadata["observation"]
        actions = client.infer(message)["actions"]
    assert actions[0].tolist() == [3, 1, 0, 0, -1]


def test_answers_under_way_are_finished_before_the_server_ends():
    def predict(inputs):
        if inputs["proprio"].any():
            time.sleep(0.5)
        return tell(inputs)

    with serving(make_policy(predict)) as (server, address):
        client = Connection(address)
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            answer = thread.submit(client.infer, observe(1.0))
            wait_until(lambda: server.stats()["requests"] == 1)
    assert answer.result()["actions"][0, 0] == 1
