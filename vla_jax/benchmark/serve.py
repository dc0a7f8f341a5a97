"""How long a client waits for a chunk, and how many chunks a server gives per second.

The server runs in a process of its own; the clients are threads of this one, each with
a connection. They ask again as soon as they have an answer, which no robot does: the
rates are what the server can bear.
"""

import asyncio
import contextlib
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vla_jax.benchmark.report import Row
from vla_jax.client.connection import Connection
from vla_jax.serving.policy import Policy, batch_sizes
from vla_jax.serving.timing import percentiles_ms

_WARM_UP = 5  # requests of each client that are not timed
_START_S = 600.0  # longest time to wait for a server that compiles


def measure_serve(
    folder: str | Path, clients: Sequence[int], *, num_requests: int
) -> list[Row]:
    """Times requests from outside.

    Args:
        folder: of the bundle.
        clients: numbers of clients at a time; each is an arm.
        num_requests: requests of each client.

    Raises:
        ValueError: a bundle that cannot be loaded, or no clients or requests.
    """
    if num_requests < 1 or not clients or min(clients) < 1:
        raise ValueError(
            f"num_batches is {num_requests} and clients {tuple(clients)}; expected "
            "positive numbers."
        )
    policy, rows = Policy.load(folder), []
    question = {
        name: policy.example[name][0, -1]
        for name in policy.schema.input_shapes()
        if name.partition("/")[0] in ("image", "depth", "proprio")
    }
    for name in policy.schema.matrices:
        kind, camera = name.split("/", 1)
        question[f"camera/{camera}/{kind}"] = policy.example[name][0, -1]
    question["prompt"] = "open the drawer"
    with _server(folder, max(clients)) as url:
        for count in clients:
            seconds, infer, total = _ask(url, question, count, num_requests)
            name = f"serve/clients{count}"
            rows += [
                Row(f"{name}_{key}", value, "ms")
                for key, value in percentiles_ms(seconds).items()
            ]
            rows += [
                Row(f"{name}_policy_p50_ms", percentiles_ms(infer)["p50_ms"], "ms"),
                Row(f"{name}_requests_per_s", len(seconds) / total, "requests/s"),
            ]
    return [*rows, Row("serve/requests_per_client", num_requests, "requests")]


def _ask(
    url: str, question: dict, count: int, num_requests: int
) -> tuple[list[float], list[float], float]:
    """Seconds of every request and of the policy in it, and of all of them together."""
    seconds: list[float] = []
    infer: list[float] = []
    errors: list[Exception] = []
    start = threading.Barrier(count + 1)

    def client() -> None:
        try:
            with Connection(url) as connection:
                for _ in range(_WARM_UP):
                    connection.infer(question)
                start.wait()
                for _ in range(num_requests):
                    asked = time.perf_counter()
                    answer = connection.infer(question)
                    seconds.append(time.perf_counter() - asked)
                    infer.append(answer["policy_timing"]["infer_ms"] / 1000)
        except Exception as error:  # told by the main thread
            errors.append(error)
            start.abort()

    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    begun = 0.0
    with contextlib.suppress(threading.BrokenBarrierError):
        start.wait()
        begun = time.perf_counter()
    for thread in threads:
        thread.join()
    total = time.perf_counter() - begun
    if errors:
        raise ValueError(f"A client of {url} failed: {errors[0]}")
    return seconds, infer, total


@contextlib.contextmanager
def _server(folder: str | Path, max_batch: int) -> Iterator[str]:
    """A server in a process of its own; yields its address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(str(folder), max_batch, theirs))
    process.start()
    try:
        deadline = time.monotonic() + _START_S
        while not ours.poll(0.1):
            if not process.is_alive() or time.monotonic() > deadline:
                raise ValueError(f"The server of {folder} did not start.")
        yield f"ws://127.0.0.1:{ours.recv()}"
    finally:
        ours.close()  # tells the server to stop
        process.join()


def _serve(folder: str, max_batch: int, pipe) -> None:
    """Runs in the server's process; stops when the other end of the pipe closes."""
    from vla_jax.serving.server import PolicyServer

    async def serve() -> None:
        policy = Policy.load(folder, batch_sizes=batch_sizes(max_batch))
        server, stop = PolicyServer(policy), asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
        await server.run(
            "127.0.0.1", 0, stop=stop, on_ready=lambda: pipe.send(server.port)
        )

    asyncio.run(serve())
