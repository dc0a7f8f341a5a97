import socket
import threading

import numpy as np
import pytest
from websockets.sync.server import serve

from tests.serving.fake_policy import make_policy, observe, serving
from vla_jax.client.connection import Connection, ServerError
from vla_jax.client.wire import pack


def test_a_broken_connection_is_opened_again_by_the_next_question():
    with serving(make_policy()) as (_, url), Connection(url) as client:
        with pytest.raises(ServerError, match="'prompt' is a NoneType"):
            client.infer({})
        assert client.infer(observe(2.0))["actions"][0, 0] == 2
        client.close()
        assert client.infer(observe(3.0))["actions"][0, 0] == 3


def test_it_waits_for_a_server_that_is_not_up_yet():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(ServerError, match="Nobody answers at ws"):
        Connection(f"ws://127.0.0.1:{port}", wait_s=0.1)
    with pytest.raises(ValueError, match="expected ws://host:port"):
        Connection("localhost:8000")


def strange(first, answer):
    """A server that says these two things."""

    def handle(client):
        client.send(first)
        client.recv()
        if answer is None:
            threading.Event().wait(1)
        else:
            client.send(answer)

    return serve(handle, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("first", "answer", "message"),
    [
        ("not for you", b"", "says: 'not for you'"),
        (pack({}), pack({"action": 1}), "sent no actions"),
        (pack({}), pack({"actions": np.zeros(3)}), "sent no actions"),
        (pack({}), "Traceback: boom", "says: Traceback: boom"),
        (pack({}), None, "did not answer within 0.2 s"),
    ],
)
def test_servers_that_misbehave_are_told_apart(first, answer, message):
    with strange(first, answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        try:
            with pytest.raises(ServerError, match=message):
                client = Connection(url, timeout_s=0.2)
                client.infer({})
        finally:
            server.shutdown()
            thread.join()
