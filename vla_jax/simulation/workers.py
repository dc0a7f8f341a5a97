"""Worker processes that each serve one request at a time, and end with their parent.

Workers are spawned, never forked: the parent may hold JAX, whose threads do not survive
a fork. Each worker has a pipe of its own; when the parent is gone, by whatever cause,
the pipe breaks and the worker ends.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# One thread per worker: they share the cores. LP_NUM_THREADS is Mesa's rasterizer.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LP_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
}
_SECONDS_TO_END = 5.0


class WorkerError(RuntimeError):
    """A worker failed or died; the message names what it was working on."""


class Workers:
    """A few processes, each serving requests with a handler of its own.

    with Workers(make_handler, [(0,), (1,)]) as workers:
        workers.submit(0, request, "task 'reach', seed 3")
        for worker, reply in workers.wait():
            ...

    Leaving the block ends every process, also after Ctrl-C and SIGTERM.
    """

    def __init__(
        self, make_handler: Callable[..., Any], arguments: Sequence[tuple]
    ) -> None:
        """Describes the workers; `with` starts them.

        Args:
            make_handler: called in the worker; returns an object that is called with
                each request, returns the reply, and has a method `close`. Must be
                importable from its module, as must everything in `arguments`.
            arguments: arguments of `make_handler`, one tuple for each worker.
        """
        self._make_handler = make_handler
        self._arguments = list(arguments)
        self._processes: list = []
        self._pipes: list = []
        self._labels: dict[int, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Workers":
        self._stack.enter_context(_sigterm_raises())
        context = multiprocessing.get_context("spawn")
        try:
            with _environment(_ENVIRONMENT), _sigint_blocked():
                for number, arguments in enumerate(self._arguments):
                    ours, theirs = context.Pipe()
                    process = context.Process(
                        target=_serve,
                        args=(theirs, self._make_handler, arguments),
                        name=f"simulation-{number}",
                        daemon=True,
                    )
                    process.start()
                    theirs.close()
                    self._processes.append(process)
                    self._pipes.append(ours)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, error, trace) -> None:
        del kind, error, trace
        self.close()

    @property
    def idle(self) -> list[int]:
        """Workers without a request."""
        return [n for n in range(len(self._pipes)) if n not in self._labels]

    @property
    def busy(self) -> list[int]:
        """Workers whose reply is still to come."""
        return sorted(self._labels)

    def submit(self, worker: int, request: Any, label: str) -> None:
        """Sends a request to an idle worker.

        Args:
            worker: its number.
            request: anything that can be pickled, but None.
            label: what an error message calls the request, e.g. "task 'reach', seed 3".

        Raises:
            WorkerError: the worker is not alive.
        """
        assert worker not in self._labels
        self._labels[worker] = label
        try:
            self._pipes[worker].send(request)
        except OSError:
            raise self._death(worker) from None

    def wait(self) -> list[tuple[int, Any]]:
        """Waits for the next replies; returns (worker, reply), at least one.

        Raises:
            WorkerError: a worker failed or died.
        """
        busy = {self._pipes[n]: n for n in self._labels}
        replies = []
        for pipe in multiprocessing.connection.wait(list(busy)):
            worker = busy[pipe]
            try:
                kind, reply = pipe.recv()
            except (EOFError, OSError):
                raise self._death(worker) from None
            label = self._labels.pop(worker)
            if kind == "error":
                raise WorkerError(f"{label} failed in a simulation worker:\n{reply}")
            replies.append((worker, reply))
        return replies

    def close(self) -> None:
        """Ends all workers: asks, then terminates, then kills; leaves no zombie."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
            pipe.close()
        # A busy worker would finish its request first; nobody waits for the reply.
        for worker in list(self._labels):
            self._processes[worker].terminate()
        for process in self._processes:
            process.join(_SECONDS_TO_END)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._processes, self._pipes, self._labels = [], [], {}
        self._stack.close()

    def _death(self, worker: int) -> WorkerError:
        label = self._labels.pop(worker)
        process = self._processes[worker]
        process.join(_SECONDS_TO_END)
        code = process.exitcode
        cause = f"exit code {code}"
        if code is not None and code < 0:
            cause = f"killed by {signal.Signals(-code).name}"
        return WorkerError(
            f"The simulation worker playing {label} died ({cause}). Finished episodes "
            "are kept; run the same command to continue."
        )


def _serve(pipe, make_handler: Callable[..., Any], arguments: tuple) -> None:
    """Body of a worker: answers requests until None comes or the parent is gone."""
    handler = None
    try:
        while (request := pipe.recv()) is not None:
            try:
                if handler is None:
                    handler = make_handler(*arguments)
                reply = ("reply", handler(request))
            except Exception:
                reply = ("error", traceback.format_exc())
            pipe.send(reply)
    except (EOFError, OSError):
        pass
    finally:
        if handler is not None:
            handler.close()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables for the processes started in the block; keeps what is set."""
    added = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Keeps Ctrl-C, which reaches the whole process group, from children in the block.

    They inherit the mask; the parent gets a Ctrl-C of that time when the block ends.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM unwind the stack as Ctrl-C does, so that workers are ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number, frame):
        del number, frame
        raise SystemExit(128 + signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
