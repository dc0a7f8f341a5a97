"""A policy server as the agent of an evaluation: one connection for each slot."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from vla_jax.client.connection import Connection
from vla_jax.client.layouts import Layout
from vla_jax.client.robot import ChunkController

_CAMERAS = ("primary", "wrist")  # of a server that does not say
_IMAGE_SIZE = (224, 224)  # as openpi's clients send


class RemoteAgent:
    """Plays episodes with the policy behind a server, as `vla_jax.serving.agent.Agent`.

    Attributes:
        cameras: names of the images that are sent.
        image_size: their height and width in pixels.
        execute, ensemble: how chunks are played.
        metadata: what the server said of itself.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        layout: Layout | None = None,
        cameras: Sequence[str] | None = None,
        image_size: tuple[int, int] | None = None,
        execute: int | None = None,
        ensemble: float | None = None,
    ):
        """Connects once to learn what the server wants.

        Args:
            connect: opens a connection.
            layout: names and gripper of the server; what it states where None.
            cameras, image_size: what to send; what it states where None, for servers
                that do not say primary and wrist in 224 x 224 pixels.
            execute, ensemble: how to play; as the server states where None.
        """
        self._connect = connect
        self._spare = [connect()]
        self.metadata = self._spare[0].metadata
        schema = self.metadata.get("schema", {})
        self._layout = layout or _stated_layout(self.metadata)
        self.cameras = tuple(cameras or schema.get("cameras", _CAMERAS))
        self.image_size = tuple(image_size or schema.get("image_size", _IMAGE_SIZE))
        probe = ChunkController(self._spare[0], execute=execute, ensemble=ensemble)
        self.execute, self.ensemble = probe.execute, probe.ensemble
        self._slots: dict[int, ChunkController] = {}
        self._threads = ThreadPoolExecutor(thread_name_prefix="policy-client")

    def reset(self, slot: int, seed: int) -> None:
        """Begins an episode; servers of other makes do not learn of the seed."""
        if slot not in self._slots:
            connection = self._spare.pop() if self._spare else self._connect()
            self._slots[slot] = ChunkController(
                connection, execute=self.execute, ensemble=self.ensemble
            )
        self._slots[slot].reset(seed)

    def needs_image(self, slot: int) -> bool:
        """Whether the next `act` looks at the images of this slot's observation."""
        return self._slot(slot).needs_observation

    def act(
        self,
        slots: Sequence[int],
        observations: Sequence[Mapping[str, Any]],
        instructions: Sequence[str],
    ) -> np.ndarray:
        """The next action of each of these slots, f32 [n a], the gripper 1 = open.

        Raises:
            ServerError: the server refuses, or is gone.
            ValueError: a slot without an episode.
        """
        answers = {}
        for number, observation, prompt in zip(
            slots, observations, instructions, strict=True
        ):
            slot = self._slot(number)
            message = self._message(observation) if slot.needs_observation else {}
            question = slot.question(message, prompt)
            if question is not None:
                # All are asked at once, so that the server can answer them in one call.
                answers[number] = self._threads.submit(slot.ask, question)
        for number, answer in answers.items():
            chunk = self._layout.actions_in(answer.result())
            self._slots[number].add(chunk)
        return np.stack([self._slots[number].next() for number in slots])

    def _message(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        flat = {f"image/{c}": observation["image"][c] for c in self.cameras}
        flat["proprio"] = np.asarray(observation["proprio"], np.float32)
        return self._layout.write(flat)

    def _slot(self, number: int) -> ChunkController:
        if number not in self._slots:
            raise ValueError(f"Slot {number} has no episode; call reset({number}).")
        return self._slots[number]


def _stated_layout(metadata: Mapping[str, Any]) -> Layout:
    names = metadata.get("names", {})
    return Layout(
        {name: tuple(other.split("+")) for name, other in names.items()},
        metadata.get("gripper", "open_1"),
    )
