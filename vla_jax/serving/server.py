"""A policy behind openpi's websocket protocol, for several clients at once.

The server speaks first: one message with its metadata. Then it answers every
observation with `actions` and timings. An error is a text message, after which the
connection is closed with code 1011. `GET /healthz` answers "OK" once the policy is
compiled, `GET /stats` with counts and percentiles of latency.
"""

import asyncio
import hmac
import http
import json
import logging
import secrets
import time
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from vla_jax.client.layouts import Layout
from vla_jax.client.wire import MAX_BYTES, pack
from vla_jax.serving.batcher import Batcher
from vla_jax.serving.policy import Policy
from vla_jax.serving.session import Session
from vla_jax.serving.timing import Timings

_LOG = logging.getLogger(__name__)
_SEND_S = 20.0  # longest time for a client to take an answer
_DRAIN_S = 10.0  # longest time that answers under way are waited for at the end
_ERROR = 1011  # close code, as openpi's server has it
_LEAVING = 1001  # close code of a server that goes away
_FULL = 1013  # close code for "try again later"


class PolicyServer:
    """Serves one policy.

    Attributes:
        port: where it listens, once it does.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        layout: Layout | None = None,
        layout_name: str = "vla_jax",
        api_key: str | None = None,
        max_bytes: int = MAX_BYTES,
        max_clients: int = 64,
        send_s: float = _SEND_S,
    ):
        """Prepares a server; `run` starts it.

        Args:
            policy: whose largest batch size is that of a call.
            layout: names and gripper of the clients; this library's when None.
            layout_name: what the metadata call the layout.
            api_key: what clients must send as `Authorization: Api-Key <key>`; None lets
                everybody in.
            max_bytes: largest message; a client that sends more is disconnected.
            max_clients: connections at a time; others are turned away with status 503.
            send_s: seconds after which a client that takes no answers is dropped.
        """
        self._policy, self._layout = policy, layout or Layout()
        self._key = None if api_key is None else f"Api-Key {api_key}".encode()
        self._max_bytes, self._max_clients = max_bytes, max_clients
        self._send_s = send_s
        self._layout_name = layout_name
        self._timings = Timings()
        self._counts = dict.fromkeys(("clients", "requests", "refused", "failed"), 0)
        self._busy, self._stopping = 0, False
        self.port: int | None = None

    def metadata(self) -> dict:
        """What every client is told first."""
        policy = self._policy
        wanted = {
            name: {"type": dtype, "shape": list(shape[1:])}
            for name, (shape, dtype) in policy.schema.input_shapes().items()
            if name.partition("/")[0] in ("image", "depth", "proprio")
        }
        for name in policy.schema.matrices:
            kind, camera = name.split("/", 1)
            size = {"intrinsics": 3, "extrinsics": 4}[kind]
            wanted[f"camera/{camera}/{kind}"] = {
                "type": "float32",
                "shape": [size, size],
            }
        names = {key: "+".join(value) for key, value in self._layout.names.items()}
        wanted = {names.get(name, name): entry for name, entry in wanted.items()}
        return {
            "protocol": "openpi",
            "server": "vla_jax",
            "schema": policy.schema.to_json(),
            "observation": {**wanted, "prompt": {"type": "text"}},
            "optional": {"reset": {"type": "bool"}, "seed": {"type": "int"}},
            "layout": self._layout_name,
            "names": names,
            "gripper": self._layout.gripper,
            "execute": policy.execute,
            "ensemble": policy.ensemble,
            "policy": policy.description,
            "max_message_bytes": self._max_bytes,
        }

    async def run(
        self,
        host: str,
        port: int,
        *,
        stop: asyncio.Event,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Compiles the policy, listens, and serves until `stop` is set.

        Answers under way are finished first; then all connections are closed.

        Args:
            host: address to listen at.
            port: 0 for any that is free.
            stop: ends the server.
            on_ready: called once clients are let in.

        Raises:
            OSError: the port is taken.
        """
        await asyncio.to_thread(self._policy.warm_up)
        self._first = pack(self.metadata())
        self._batcher = Batcher(self._policy.predict, self._policy.batch_sizes[-1])
        batches = asyncio.create_task(self._batcher.run())
        try:
            async with serve(
                self._handle,
                host,
                port,
                process_request=self._admit,
                compression=None,
                max_size=self._max_bytes,
                max_queue=1,  # a client has one question at a time
                server_header=None,
            ) as server:
                self.port = server.sockets[0].getsockname()[1]
                on_ready()
                await stop.wait()
                self._stopping = True
                deadline = time.monotonic() + _DRAIN_S
                while self._busy and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
        finally:
            batches.cancel()
            await asyncio.gather(batches, return_exceptions=True)

    def stats(self) -> dict:
        """Counts since the start, and percentiles of the last requests."""
        return {**self._counts, "latency": self._timings.summary()}

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answers plain HTTP requests, and turns away who may not come in."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._key is not None:
            sent = request.headers.get_all("Authorization")
            given = sent[0].encode("utf-8", "replace") if len(sent) == 1 else b""
            if not hmac.compare_digest(given, self._key):
                return connection.respond(
                    http.HTTPStatus.UNAUTHORIZED, "Send 'Authorization: Api-Key KEY'.\n"
                )
        if request.path == "/stats":
            return connection.respond(http.HTTPStatus.OK, json.dumps(self.stats()))
        if self._stopping or self._counts["clients"] >= self._max_clients:
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE,
                f"At most {self._max_clients} clients are served; try again later.\n",
            )
        return None

    async def _handle(self, socket: ServerConnection) -> None:
        """One client, from its first message to its last."""
        self._counts["clients"] += 1
        session, previous = Session(self._policy, self._layout), None
        try:
            if self._counts["clients"] > self._max_clients:  # came in at one moment
                await socket.close(_FULL, "too many clients")
                return
            await self._send(socket, self._first)
            while not self._stopping:
                data = await socket.recv()
                start = time.perf_counter()
                self._busy += 1
                try:
                    reply = await self._answer(session, data, start, previous)
                    await self._send(socket, reply)
                finally:
                    self._busy -= 1
                if isinstance(reply, str):
                    await socket.close(_ERROR, "see the text message")
                    return
                previous = time.perf_counter() - start
                self._timings.add(total=previous)
            await socket.close(_LEAVING, "the server ends")
        except ConnectionClosed:
            pass  # a client may leave at any time
        except TimeoutError:
            _LOG.info("dropped %s: it takes no answers", socket.remote_address)
            socket.transport.abort()
        finally:
            self._counts["clients"] -= 1

    async def _answer(
        self, session: Session, data: bytes | str, start: float, previous: float | None
    ) -> bytes | str:
        """The reply to one message; a text is an error, and never tells of the code."""
        self._counts["requests"] += 1
        try:
            row = await asyncio.to_thread(session.row, data)
            ready = time.perf_counter()
            answer = await self._batcher.predict(row)
        except ValueError as error:
            self._counts["refused"] += 1
            return f"The observation was refused: {error}"
        except Exception:
            self._counts["failed"] += 1
            number = secrets.token_hex(4)
            _LOG.exception("request %s failed", number)
            return f"The policy failed; the server's log says why under {number}."
        self._timings.add(
            prepare=ready - start, queue=answer.waited_s, infer=answer.infer_s
        )
        timing = {
            "infer_ms": 1000 * (time.perf_counter() - start),
            "prepare_ms": 1000 * (ready - start),
            "queue_ms": 1000 * answer.waited_s,
            "batch": answer.rows,
        }
        if previous is not None:
            timing["prev_total_ms"] = 1000 * previous
        return pack(
            {
                "actions": self._layout.actions_out(answer.chunk),
                "policy_timing": {"infer_ms": 1000 * answer.infer_s},
                "server_timing": timing,
            }
        )

    async def _send(self, socket: ServerConnection, message: bytes | str) -> None:
        async with asyncio.timeout(self._send_s):
            await socket.send(message)
