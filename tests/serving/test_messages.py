"""What the server says to wrong, malformed and hostile messages."""

import time

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.serving.fake_policy import make_policy, observe, serving
from vla_jax.client.connection import Connection
from vla_jax.client.wire import pack, unpack


@pytest.fixture(scope="module")
def url():
    with serving(make_policy(), max_bytes=4096) as (_, address):
        yield address


def raw(url, data):
    """What the server says to a message: its text, and the code it closes with."""
    with connect(url, compression=None) as client:
        client.recv()
        client.send(data)
        answer = client.recv(timeout=10)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
    return answer, closed.value.rcvd.code


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": 3}, "'prompt' is a int; expected the instruction as a text"),
        ({"prompt": "a b c d"}, "more than 3 words"),
        ({"proprio": np.zeros(3)}, "shape (3,)"),
        ({"proprio": "x"}, "proprio has shape ()"),
        ({"proprio": [1.0, "x"]}, "something else than numbers"),
        ({"proprio": np.array([np.nan, 0])}, "not finite"),
        ({"proprio": np.zeros((0, 2))}, "'proprio' has 0 steps"),
        ({"image/wrist": np.zeros((4, 4), np.uint8)}, "'wrist' is uint8 (4, 4)"),
        ({"image/wrist": np.zeros((4, 4, 3))}, "'wrist' is float64 (4, 4, 3)"),
        ({"image/wrist": np.zeros((0, 4, 3), np.uint8)}, "0 x 4 pixels"),
        ({"image/wrist": "picture"}, "'wrist' is <U7 ()"),
        ({"image": {"wrist": 1}}, "has 'image/wrist' twice"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**40}, "seed is 1099511627776"),
        ({"seed": 1.5}, "'seed' is a float"),
        ({"reset": "yes"}, "'reset' is a str"),
    ],
)
def test_a_wrong_observation_is_named_and_closed_as_openpi_does(url, changes, message):
    answer, code = raw(url, pack(observe(**changes)))
    assert message in answer and code == 1011
    assert "Traceback" not in answer and ".py" not in answer


def test_a_missing_camera_lists_what_came(url):
    observation = observe()
    del observation["image/wrist"]
    answer, _ = raw(url, pack(observation))
    assert "needs camera 'wrist'" in answer and "['primary']" in answer


def array(**changes):
    content = {"__ndarray__": True, "data": b"1234", "dtype": "<f4", "shape": [1]}
    return {key.encode(): value for key, value in {**content, **changes}.items()}


@pytest.mark.parametrize(
    "data",
    [
        "text",
        b"",
        b"\xc1",
        pack(observe())[:-5],
        pack([1, 2]),
        pack(None),
        b"\x91" * 3000 + b"\xc0",
        b"\x81\xa1a" * 600 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xffx",
        msgpack.packb({"a": msgpack.ExtType(1, b"cbuiltins\neval\n")}),
        msgpack.packb({1: 2}),
        msgpack.packb({b"x": 2}),
        *(
            msgpack.packb({"proprio": array(**changes)})
            for changes in (
                {"dtype": "|O"},
                {"dtype": "V2000000000"},
                {"dtype": "(1000000000,)f4"},
                {"dtype": "<c8"},
                {"dtype": 4},
                {"shape": [2**62, 2**62]},
                {"shape": [-1]},
                {"shape": [True]},
                {"shape": [1] * 100},
                {"shape": {}},
                {"data": "1234"},
            )
        ),
    ],
)
def test_a_malformed_or_hostile_message_is_refused_at_once(url, data):
    start = time.monotonic()
    answer, code = raw(url, data)
    assert answer.startswith("The observation was refused: ") and code == 1011
    assert len(answer) < 1000
    assert time.monotonic() - start < 5
    with Connection(url) as client:  # and others are served on
        assert client.infer(observe())["actions"].shape == (4, 5)


def test_an_oversized_message_is_not_read(url):
    with connect(url, compression=None) as client:
        assert unpack(client.recv())["max_message_bytes"] == 4096
        with pytest.raises(ConnectionClosed) as closed:
            client.send(b"x" * 5000)
            client.recv(timeout=10)
    assert closed.value.rcvd.code == 1009
