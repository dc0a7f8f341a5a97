"""Closed-loop episodes: environments in parallel processes feed one batched policy.

Every worker process holds one environment, in a slot of the same number. In each round
all environments take their step, then the agent is asked once for all of them. Pictures
travel through shared memory. An episode and the draws in it depend on its seed alone,
not on the number of workers or on which slot plays it; a policy's actions are the same
up to rounding, which a long episode may amplify.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from vla_jax.simulation.environment import Environment, check_rate
from vla_jax.simulation.video import add_caption, write_video
from vla_jax.simulation.workers import Workers

VIDEO_SIZE = 256  # pixels
VIDEO_STRIDE = 2  # environment steps per frame


class Agent(Protocol):
    """A policy with the memory that playing needs, one memory for each slot.

    Attributes:
        cameras: names of the images it looks at.
        image_size: their height and width.

    One that knows the actions per second that it was trained for has them as
    `control_hz`; an environment that is controlled at another rate is refused.
    """

    cameras: tuple[str, ...]
    image_size: tuple[int, int]

    def reset(self, slot: int, seed: int) -> None:
        """Forgets the slot's last episode; `seed` pins what the next one samples."""

    def needs_image(self, slot: int) -> bool:
        """Whether the next `act` looks at this slot's images; else `image` is empty."""

    def act(
        self, slots: list[int], observations: list[dict], instructions: list[str]
    ) -> np.ndarray:
        """Standard, un-normalized actions f32 [n, a], one for each slot named."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """An episode to play: its task, its number within the task, its seed."""

    task: str
    number: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of an episode; `steps` counts to success, or to the horizon."""

    task: str
    number: int
    seed: int
    instruction: str
    success: bool
    steps: int


def run_episodes(
    agent: Agent,
    episodes: Sequence[Episode],
    make: Callable[[str], Environment],
    *,
    num_workers: int,
    on_result: Callable[[Result], None] = lambda result: None,
    video_path: Callable[[Episode], Path | None] = lambda episode: None,
    progress: bool = True,
) -> list[Result]:
    """Plays episodes to success or horizon.

    Args:
        agent: the policy; asked in this process.
        episodes: what to play.
        make: makes the environment of a task with the agent's cameras and image size;
            called in the workers, so it must be importable there.
        num_workers: processes, and so environments at a time.
        on_result: called with each result as soon as it is there, in any order.
        video_path: where to write the video of an episode; None for no video.
        progress: show a progress bar.

    Returns:
        The results, in the order of `episodes`.

    Raises:
        WorkerError: a worker failed or died, or its environment has another rate than
            the agent; the message names task and seed.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers is {num_workers}; expected at least 1.")
    waiting = list(episodes)
    if not waiting:
        return []
    num_workers = min(num_workers, len(waiting))
    # Not every agent knows: a policy behind a server need not say.
    control_hz = getattr(agent, "control_hz", None)
    results: dict[Episode, Result] = {}
    with (
        tqdm(total=len(waiting), unit="episode", disable=not progress) as bar,
        _shared_images(num_workers, agent) as (blocks, names),
        Workers(
            Player, [(make, name, _layout(agent), control_hz) for name in names]
        ) as workers,
    ):
        playing: dict[int, Episode] = {}

        def start(slot: int) -> None:
            busy = [e.task for n, e in playing.items() if n != slot]
            last = playing.pop(slot).task if slot in playing else None
            if not waiting:
                return
            episode = min(waiting, key=lambda e: (e.task != last, busy.count(e.task)))
            waiting.remove(episode)
            playing[slot] = episode
            agent.reset(slot, episode.seed)
            path = video_path(episode)
            workers.submit(slot, ("reset", episode, path), _label(episode))

        for slot in range(num_workers):
            start(slot)
        while playing:
            states = _wait_for_all(workers)
            acting = []
            for slot in sorted(states):
                state, episode = states[slot], playing[slot]
                if not state.done:
                    acting.append(slot)
                    continue
                result = Result(
                    **dataclasses.asdict(episode),
                    instruction=state.instruction,
                    success=state.success,
                    steps=state.steps,
                )
                results[episode] = result
                on_result(result)
                bar.set_postfix_str(_tally(results.values()), refresh=False)
                bar.update()
                start(slot)
            if not acting:
                continue
            actions = agent.act(
                acting,
                [_observation(agent, blocks[slot], states[slot]) for slot in acting],
                [states[slot].instruction for slot in acting],
            )
            for slot, action in zip(acting, np.asarray(actions), strict=True):
                request = ("step", action, agent.needs_image(slot))
                workers.submit(slot, request, _label(playing[slot]))
    return [results[episode] for episode in episodes]


@dataclasses.dataclass(frozen=True)
class State:
    """A worker's reply; the pictures lie in shared memory if `rendered`."""

    instruction: str
    proprio: np.ndarray
    success: bool
    done: bool
    steps: int
    rendered: bool


class Player:
    """Plays one environment in a worker process; records videos where asked to."""

    def __init__(
        self,
        make: Callable[[str], Environment],
        block: str,
        layout: tuple[tuple[str, ...], tuple[int, int]],
        control_hz: float | None,
    ):
        self._make = make
        self._control_hz = control_hz
        self._cameras, (height, width) = layout
        self._block = SharedMemory(block)
        shape = (len(self._cameras), height, width, 3)
        self._images = np.ndarray(shape, np.uint8, self._block.buf)
        self._environment: Environment | None = None
        self._steps = 0
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
        observation = self._environment.reset(episode.seed)
        return self._state(observation, success=False, render=True)

    def _step(self, action: np.ndarray, render: bool) -> State:
        observation, _, success = self._environment.step(action, render=render)
        self._steps += 1
        return self._state(observation, bool(success), render)

    def _state(self, observation: dict, success: bool, render: bool) -> State:
        environment = self._environment
        done = success or self._steps >= environment.horizon
        if render:
            for number, camera in enumerate(self._cameras):
                self._images[number] = observation["image"][camera]
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
            steps=self._steps,
            rendered=render,
        )

    def _write_video(self, success: bool) -> None:
        words = self._environment.instruction
        fps = self._environment.control_hz / VIDEO_STRIDE
        frames = [add_caption(frame, words) for frame in self._frames]
        # Half a second that shows the outcome.
        frames += [add_caption(self._frames[-1], words, success)] * round(fps / 2)
        write_video(self._video, frames, fps)
        self._frames = []


def _layout(agent: Agent) -> tuple[tuple[str, ...], tuple[int, int]]:
    size = agent.image_size
    return tuple(agent.cameras), (size, size) if isinstance(size, int) else tuple(size)


@contextlib.contextmanager
def _shared_images(num_workers: int, agent: Agent) -> Iterator[tuple[list, list[str]]]:
    """One block of memory for the pictures of each slot: arrays, and their names."""
    cameras, (height, width) = _layout(agent)
    shape = (len(cameras), height, width, 3)
    blocks = []
    try:
        for _ in range(num_workers):
            blocks.append(SharedMemory(create=True, size=max(1, int(np.prod(shape)))))
        yield [block.buf for block in blocks], [block.name for block in blocks]
    finally:
        for block in blocks:
            block.close()
            block.unlink()


def _observation(agent: Agent, buffer: memoryview, state: State) -> dict:
    """An observation with its own copy of the pictures: agents keep a history."""
    image = {}
    if state.rendered:
        cameras, (height, width) = _layout(agent)
        shape = (len(cameras), height, width, 3)
        pictures = np.frombuffer(buffer, np.uint8, int(np.prod(shape))).reshape(shape)
        image = {camera: pictures[n].copy() for n, camera in enumerate(cameras)}
    return {"image": image, "proprio": state.proprio}


def _wait_for_all(workers: Workers) -> dict[int, State]:
    """Replies of all busy workers: the agent is asked once for all of them."""
    states: dict[int, State] = {}
    while workers.busy:
        states.update(workers.wait())
    return states


def _label(episode: Episode) -> str:
    return f"task '{episode.task}', episode {episode.number}, seed {episode.seed}"


def _tally(results) -> str:
    wins = sum(result.success for result in results)
    return f"{wins}/{len(results)} succeeded"
