"""One environment in a worker process: it plays, films and tells what happened."""

import dataclasses
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from vla_jax.data.resize import resize
from vla_jax.simulation.environment import Environment, check_rate
from vla_jax.simulation.tracking import Sight, has_objects, see_objects
from vla_jax.simulation.video import add_caption, write_video

VIDEO_SIZE = 256  # pixels
VIDEO_STRIDE = 2  # environment steps per frame


@dataclasses.dataclass(frozen=True)
class Episode:
    """An episode to play.

    Attributes:
        task: its task.
        number: within the task.
        seed: what is drawn depends on it: the initial state, what a policy samples.
        fixed_start: number of a fixed initial state; None for one that is drawn.
    """

    task: str
    number: int
    seed: int
    fixed_start: int | None = None


@dataclasses.dataclass(frozen=True)
class State:
    """A worker's reply; the pictures lie in shared memory if `rendered`.

    `success`, `steps`, `stage`, `held` and `start` are those of `Result` so far.
    """

    instruction: str
    proprio: np.ndarray
    success: bool
    done: bool
    steps: int
    rendered: bool
    stage: int | None
    held: bool
    start: list[list[float]] | None
    sight: Sight | None


class Player:
    """Plays one environment in a worker process; records videos where asked to."""

    def __init__(
        self,
        make: Callable[[str], Environment],
        block: str,
        layout: tuple[tuple[str, ...], tuple[int, int]],
        control_hz: float | None = None,
        tracked: tuple[str, ...] = (),
        whole: bool = False,
    ):
        self._make = make
        self._control_hz = control_hz
        self._tracked, self._whole = tracked, whole
        self._cameras, (height, width) = layout
        self._block = SharedMemory(block)
        shape = (len(self._cameras), height, width, 3)
        self._images = np.ndarray(shape, np.uint8, self._block.buf)
        self._environment: Environment | None = None
        self._steps, self._stage = 0, 0
        self._solved_at: int | None = None
        self._start: list | None = None
        self._video: Path | None = None
        self._frames: list[np.ndarray] = []

    def __call__(self, request: tuple) -> State:
        """Serves ("reset", episode, video path) and ("step", action, render)."""
        kind, *rest = request
        if kind == "reset":
            return self._reset(*rest)
        return self._step(*rest)

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        # The array must go before the memory it looks into.
        self._images = None
        self._block.close()

    def _reset(self, episode: Episode, video: Path | None) -> State:
        if self._environment is None or self._environment.task != episode.task:
            if self._environment is not None:
                self._environment.close()
            self._environment = self._make(episode.task)
            if self._control_hz is not None:
                check_rate(self._environment, self._control_hz)
        self._steps, self._video, self._frames = 0, video, []
        self._stage, self._solved_at = 0, None
        fixed = episode.fixed_start
        seed = episode.seed if fixed is None else fixed
        observation = self._environment.reset(seed)
        self._start = None
        if has_objects(self._environment):
            self._start = self._environment.object_poses().tolist()
        return self._state(observation, held=False, render=True)

    def _step(self, action: np.ndarray, render: bool) -> State:
        observation, reward, held = self._environment.step(action, render=render)
        self._steps += 1
        if has_stages(self._environment):
            self._stage = max(self._stage, int(reward))
        if held and self._solved_at is None:
            self._solved_at = self._steps
        return self._state(observation, bool(held), render)

    def _state(self, observation: dict, held: bool, render: bool) -> State:
        environment = self._environment
        success = self._solved_at is not None
        over = self._steps >= environment.horizon
        done = over or (success and not self._whole)
        if render:
            for number, camera in enumerate(self._cameras):
                image = observation["image"][camera]
                self._images[number] = resize(image, *self._images.shape[1:3])
        if self._video is not None:
            if done or self._steps % VIDEO_STRIDE == 0:
                self._frames.append(environment.frame(VIDEO_SIZE))
            if done:
                self._write_video(success)
        return State(
            instruction=environment.instruction,
            proprio=observation["proprio"],
            success=success,
            done=done,
            steps=self._solved_at if success else self._steps,
            rendered=render,
            stage=self._stage if has_stages(environment) else None,
            held=held,
            start=self._start,
            sight=see_objects(environment, self._tracked) if self._tracked else None,
        )

    def _write_video(self, success: bool) -> None:
        words = self._environment.instruction
        fps = self._environment.control_hz / VIDEO_STRIDE
        frames = [add_caption(frame, words) for frame in self._frames]
        # Half a second that shows the outcome.
        frames += [add_caption(self._frames[-1], words, success)] * round(fps / 2)
        write_video(self._video, frames, fps)
        self._frames = []


def has_stages(environment: Environment) -> bool:
    """Whether rewards count stages; an environment need not have the attribute."""
    return bool(getattr(environment, "stages", ()))
