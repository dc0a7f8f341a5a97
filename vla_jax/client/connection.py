"""One connection to a policy server: an observation goes out, a chunk comes back."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException
from websockets.sync.client import ClientConnection, connect

from vla_jax.client.wire import pack, unpack

_PAUSE = 0.5  # seconds between attempts to connect


class ServerError(RuntimeError):
    """What the server said instead of an answer, or that it is gone."""


class Connection:
    """Speaks openpi's protocol; works with this library's server and with openpi's.

    A connection that broke is opened again by the next `infer`. Not to be used by two
    threads at a time.

    Attributes:
        metadata: what the server said of itself.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        wait_s: float = 60.0,
        timeout_s: float = 60.0,
    ):
        """Connects, waiting for the server where it is not up yet.

        Args:
            url: such as "ws://localhost:8000".
            api_key: sent as `Authorization: Api-Key <key>`.
            wait_s: seconds to go on trying while nobody listens.
            timeout_s: longest time for an answer.

        Raises:
            ServerError: nobody answers, or the server refuses.
            ValueError: a URL of another kind.
        """
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"The server is {url!r}; expected ws://host:port.")
        self._url, self._api_key = url, api_key
        self._wait_s, self._timeout_s = wait_s, timeout_s
        self._socket: ClientConnection | None = None
        self.metadata: dict[str, Any] = {}
        self._open()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Sends an observation and waits for the answer.

        Args:
            observation: flat or nested map of arrays, numbers and texts under the names
                that the server's metadata give.

        Returns:
            `actions` f32 [c a], and timings.

        Raises:
            ServerError: the server answered with an error, or not in time.
            ValueError: the observation cannot be sent.
        """
        data = pack(observation)
        if self._socket is None:
            self._open()
        try:
            self._socket.send(data)
            answer = self._socket.recv(timeout=self._timeout_s)
        except TimeoutError:
            self.close()
            raise ServerError(
                f"{self._url} did not answer within {self._timeout_s:g} s."
            ) from None
        except ConnectionClosed as error:
            self.close()
            raise ServerError(f"{self._url} closed the connection: {error}.") from None
        if isinstance(answer, str):
            self.close()  # The server closes it after an error.
            raise ServerError(f"{self._url} says: {answer}")
        reply = unpack(answer)
        actions = reply.get("actions") if isinstance(reply, dict) else None
        if not isinstance(actions, np.ndarray) or actions.ndim != 2:
            raise ServerError(f"{self._url} sent no actions of shape [chunk, action].")
        return reply

    def close(self) -> None:
        """Closes the connection; `infer` would open it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> None:
        headers = {"Authorization": f"Api-Key {self._api_key}"} if self._api_key else {}
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                self._socket = connect(
                    self._url,
                    compression=None,
                    max_size=None,
                    additional_headers=headers,
                )
                break
            except InvalidHandshake as error:
                raise ServerError(f"{self._url} refuses: {error}.") from None
            except (OSError, WebSocketException) as error:
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"Nobody answers at {self._url}: {error}."
                    ) from None
                time.sleep(_PAUSE)
        try:
            first = self._socket.recv(timeout=self._timeout_s)
        except (TimeoutError, ConnectionClosed) as error:
            self.close()
            raise ServerError(f"{self._url} sent no metadata: {error}.") from None
        metadata = unpack(first) if isinstance(first, bytes) else None
        if not isinstance(metadata, dict):
            self.close()
            raise ServerError(f"{self._url} says: {first!r:.200}")
        self.metadata = metadata
