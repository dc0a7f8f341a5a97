"""What runs in a robot's control loop: one observation in, one action out.

    connection = Connection("ws://gpu-server:8000")
    robot = ChunkController(connection)         # or RealtimeController(connection)
    robot.reset()
    while True:
        action = robot.act(observation, "open the drawer")

Observations are flat maps from the names in `connection.metadata["observation"]` to
arrays.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from vla_jax.client.overlap import OverlapPlan
from vla_jax.serving.playing import ChunkPlayer


class Asks(Protocol):
    """A connection: its server's metadata, and a way to ask."""

    metadata: dict[str, Any]

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]: ...


class Asker:
    """Turns a stream of observations into questions, with the history a policy needs.

    Attributes:
        window: frames that the policy sees.
    """

    def __init__(self, connection: Asks):
        self._connection = connection
        schema = connection.metadata.get("schema", {})
        self.window = schema.get("window", 1)
        self._knows_reset = "reset" in connection.metadata.get("optional", {})
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode; servers of other makes are not told."""
        self._frames: deque = deque(maxlen=self.window)
        self._begin = {"reset": True} | ({} if seed is None else {"seed": seed})

    def see(self, observation: Mapping[str, Any]) -> None:
        """Takes the observation of one step."""
        self._frames.append(dict(observation))

    def question(self, prompt: str) -> dict[str, Any]:
        """The message that asks for a chunk for the step last seen."""
        message = dict(self._frames[-1])
        if self.window > 1:
            for name in message:
                message[name] = np.stack([frame[name] for frame in self._frames])
        begin = self._begin if self._knows_reset else {}
        self._begin = {k: v for k, v in self._begin.items() if k == "seed"}
        return {**message, **begin, "prompt": prompt}

    def ask(self, question: Mapping[str, Any]) -> np.ndarray:
        """The chunk f32 [c a] that the server answers with."""
        return np.asarray(self._connection.infer(question)["actions"], np.float32)


class ChunkController:
    """Plays some actions of a chunk, then looks again and waits for the next.

    Attributes:
        execute, ensemble: how chunks are played, see `ChunkPlayer`.
    """

    def __init__(
        self,
        connection: Asks,
        *,
        execute: int | None = None,
        ensemble: float | None = None,
    ):
        """Takes a connection; `execute` and `ensemble` are the server's where None."""
        if execute is None and ensemble is None:
            execute = connection.metadata.get("execute")
            ensemble = connection.metadata.get("ensemble")
        self.execute, self.ensemble = execute, ensemble
        self._asker = Asker(connection)
        self._player: ChunkPlayer | None = None

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode; the same seed draws the same actions."""
        self._asker.reset(seed)
        self._player = None

    @property
    def needs_observation(self) -> bool:
        """Whether the next `act` looks at its observation."""
        due = self._player is None or self._player.is_due
        return due or self._asker.window > 1

    def act(self, observation: Mapping[str, Any], prompt: str) -> np.ndarray:
        """The action f32 [a] of this step.

        Raises:
            ServerError: the server refuses, or is gone.
            ValueError: `execute` is longer than the server's chunks.
        """
        if self.needs_observation:
            self._asker.see(observation)
        if self._player is None or self._player.is_due:
            self.add(self._asker.ask(self._asker.question(prompt)))
        return self._player.next()

    def question(self, observation: Mapping[str, Any], prompt: str) -> dict | None:
        """Sees an observation; what to ask now, or None while a chunk is played.

        For callers that ask for several robots at a time: `add` takes the answer, and
        `next` gives the action.
        """
        if self.needs_observation:
            self._asker.see(observation)
        if self._player is None or self._player.is_due:
            return self._asker.question(prompt)
        return None

    def ask(self, question: Mapping[str, Any]) -> np.ndarray:
        """The server's chunk for a question."""
        return self._asker.ask(question)

    def add(self, chunk: np.ndarray) -> None:
        """Takes the chunk for the step last seen."""
        if self._player is None:
            self._player = ChunkPlayer(
                len(chunk), execute=self.execute, ensemble=self.ensemble
            )
        self._player.add(chunk)

    def next(self) -> np.ndarray:
        """The action of this step; `add` must have come before where one was due."""
        return self._player.next()


class RealtimeController:
    """Asks for the next chunk while the current one is played, and blends the two.

    The robot never waits, as long as a chunk is longer than the steps that an answer
    takes. Not the guided in-painting of Black et al. (2025), which needs the policy's
    gradient: the overlap is mixed by weight, which any server allows.

    Attributes:
        starved: steps that had to wait for the server; 0 is how it should be.
        late: chunks that came when all their actions were past.
    """

    def __init__(self, connection: Asks, *, execute: int | None = None, blend: int = 4):
        """Prepares to play; `close` ends the thread that asks.

        Args:
            connection: used by that thread alone from now on.
            execute: steps from one observation that is sent to the next; where None,
                half a chunk of a server that states its length, else 1.
            blend: steps over which the old chunk passes into the new one.

        Raises:
            ValueError: `execute` below 1 or a negative `blend`.
        """
        schema = connection.metadata.get("schema", {})
        if execute is None:
            execute = max(1, schema.get("chunk", 2) // 2)
        if execute < 1:
            raise ValueError(f"execute is {execute}; expected at least 1 step.")
        self._execute, self._blend = execute, blend
        self._kinds = schema.get("action", ())
        self._asker = Asker(connection)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy-client")
        self._pending: tuple[int, Future] | None = None
        self.starved = self.late = 0
        self.reset()

    def __enter__(self) -> "RealtimeController":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode; an answer still under way is thrown away."""
        if self._pending is not None:
            self._pending[1].exception()  # waits; its outcome concerns nobody
            self._pending = None
        self._asker.reset(seed)
        self._plan = OverlapPlan(blend=self._blend, kinds=self._kinds)
        self._step, self._asked = 0, -self._execute

    def act(self, observation: Mapping[str, Any], prompt: str) -> np.ndarray:
        """The action f32 [a] of this step; waits only while there is none.

        Raises:
            ServerError: the server refused or is gone; raised one step later, when the
                answer is missed.
        """
        self._asker.see(observation)
        self._take(wait=False)
        if self._pending is None and self._step - self._asked >= self._execute:
            self._send(prompt)
        if self._step not in self._plan:
            self.starved += self._step > 0
        while self._step not in self._plan:
            if self._pending is None:
                self._send(prompt)
            self._take(wait=True)
        action = self._plan[self._step]
        self._step += 1
        return action

    def close(self) -> None:
        """Waits for the answer under way and ends the thread."""
        self._thread.shutdown(wait=True)

    def _send(self, prompt: str) -> None:
        question = self._asker.question(prompt)
        future = self._thread.submit(self._asker.ask, question)
        self._pending, self._asked = (self._step, future), self._step

    def _take(self, *, wait: bool) -> None:
        """Puts an answer that is there into the plan."""
        if self._pending is None or not (wait or self._pending[1].done()):
            return
        (seen, future), self._pending = self._pending, None
        if not self._plan.add(future.result(), seen=seen, now=self._step):
            self.late += 1
