"""One client's episode on the server: from its messages to the policy's inputs."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from vla_jax.client.layouts import Layout
from vla_jax.client.wire import unpack
from vla_jax.serving.policy import Policy, Row


class Session:
    """Keeps the past frames of an episode, its seed, and how often it has predicted.

    A message is an observation of one step, or of a whole window with a time axis in
    front of every array, oldest first. A policy with a window above 1 takes messages of
    one step to be consecutive. With `reset` True an episode begins, with `seed` it
    draws as any other of this seed would.
    """

    def __init__(self, policy: Policy, layout: Layout):
        self._policy, self._layout = policy, layout
        self._begin(0)

    def row(self, data: bytes | str) -> Row:
        """The inputs that belong to a message.

        A message that is refused leaves the episode as it was.

        Raises:
            ValueError: the message is no observation, or not one of this policy.
        """
        if isinstance(data, str):
            raise ValueError("A text message came; observations are binary msgpack.")
        message = self._layout.read(unpack(data))
        seed = message.get("seed", self._seed)
        if not isinstance(seed, int | np.integer) or isinstance(seed, bool):
            raise ValueError(f"'seed' is a {type(seed).__name__}; expected an integer.")
        prompt = message.get("prompt")
        if not isinstance(prompt, str):
            raise ValueError(
                f"'prompt' is a {type(prompt).__name__}; expected the instruction as a "
                f"text. The message has {sorted(message)}."
            )
        fresh = _flag(message, "reset") or int(seed) != self._seed
        steps, whole = self._steps(message)
        frames = [self._policy.schema.check(step) for step in steps]
        past = [] if fresh or whole else list(self._frames)
        call = 0 if fresh else self._call
        row = self._policy.row(past + frames, prompt, seed=int(seed), call=call)
        if fresh:
            self._begin(int(seed))
        self._frames.extend(frames)
        self._call += 1
        return row

    def _begin(self, seed: int) -> None:
        self._seed, self._call = seed, 0
        self._frames: deque = deque(maxlen=self._policy.schema.window)

    def _steps(self, message: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """The observations in a message, and whether they are the whole window."""
        window = self._policy.schema.window
        proprio = message.get("proprio")
        if isinstance(proprio, list):
            proprio = _numbers(proprio)
            message = {**message, "proprio": proprio}
        whole = isinstance(proprio, np.ndarray) and proprio.ndim == 2
        if whole:
            length = len(proprio)
            if not 1 <= length <= window:
                raise ValueError(
                    f"'proprio' has {length} steps; the policy sees {window}."
                )
            for name, value in message.items():
                _require_steps(name, value, length)
            each = [
                {
                    k: v[i] if isinstance(v, np.ndarray) else v
                    for k, v in message.items()
                }
                for i in range(length)
            ]
        else:
            each = [dict(message)]
        return [_nest(step) for step in each], whole


def _nest(step: Mapping[str, Any]) -> dict[str, Any]:
    observation: dict[str, Any] = {"image": {}, "depth": {}, "camera": {}}
    for name, value in step.items():
        part, _, rest = name.partition("/")
        camera, _, kind = rest.partition("/")
        if part == "camera" and kind:
            observation["camera"].setdefault(camera, {})[kind] = value
        elif part in ("image", "depth") and rest:
            observation[part][rest] = value
        elif name not in observation:
            observation[name] = value
    return observation


def _require_steps(name: str, value: Any, length: int) -> None:
    if isinstance(value, np.ndarray) and (not value.ndim or len(value) != length):
        raise ValueError(
            f"{name!r} has the shape {value.shape}; 'proprio' came as a window of "
            f"{length} steps, so it needs as many."
        )


def _flag(message: Mapping[str, Any], name: str) -> bool:
    value = message.get(name, False)
    if not isinstance(value, bool | np.bool_):
        raise ValueError(
            f"{name!r} is a {type(value).__name__}; expected true or false."
        )
    return bool(value)


def _numbers(values: list) -> np.ndarray:
    """A list of numbers, which clients without NumPy send."""
    if not all(type(value) in (int, float) for value in values):
        raise ValueError("'proprio' is a list of something else than numbers.")
    return np.array(values, np.float64)
