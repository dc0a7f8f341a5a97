"""Closed-loop episodes: environments in parallel processes feed one batched policy.

Every worker process holds one environment, in a slot of the same number. In each round
all environments take their step, then the agent is asked once for all of them. Pictures
travel through shared memory. An episode and the draws in it depend on its seed alone,
not on the number of workers or on which slot plays it; a policy's actions are the same
up to rounding, which a long episode may amplify.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from vla_jax.simulation.environment import Environment
from vla_jax.simulation.player import Episode, Player, State
from vla_jax.simulation.tracking import Track
from vla_jax.simulation.workers import Workers


class Agent(Protocol):
    """A policy with the memory that playing needs, one memory for each slot.

    Attributes:
        cameras: names of the images it looks at.
        image_size: their height and width.
        point_cameras: camera of each attention point that `diagnostics` tells; empty,
            or not there, for a policy without any.

    One that knows the actions per second that it was trained for has them as
    `control_hz`; an environment that is controlled at another rate is refused.
    """

    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    point_cameras: tuple[str, ...]

    def reset(self, slot: int, seed: int) -> None:
        """Forgets the slot's last episode; `seed` pins what the next one samples."""

    def needs_image(self, slot: int) -> bool:
        """Whether the next `act` looks at this slot's images; else `image` is empty."""

    def act(
        self, slots: list[int], observations: list[dict], instructions: list[str]
    ) -> np.ndarray:
        """Standard, un-normalized actions f32 [n, a], one for each slot named."""

    def diagnostics(self, slot: int) -> Mapping[str, np.ndarray]:
        """What the slot's last `act` saw: `points` [k 2] and `future_points` [c k 2].

        x before y, from -1 to 1 over the pixel centers of an image; `future_points[j]`
        are expected j steps later. Empty when `act` played on without looking. Asked
        only where there are `point_cameras`.
        """


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of an episode.

    Attributes:
        task, number, seed: of the `Episode`.
        instruction: what the policy was told.
        success: whether the task was solved at any time.
        steps: to success, or to the horizon.
        stage: the highest stage reached at any time; None where a task has no stages.
        held: whether the task was solved in the last state.
        start: poses of the objects at the beginning, [o, 7] as in `object_poses`.
        metrics: of the attention points, see `point_metrics.measure`.
        chain: of an instruction that follows others without a reset: the number of the
            chain and the place in it, see `chains.py`.
    """

    task: str
    number: int
    seed: int
    instruction: str
    success: bool
    steps: int
    stage: int | None = None
    held: bool | None = None
    start: list[list[float]] | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    chain: tuple[int, int] | None = None


def run_episodes(
    agent: Agent,
    episodes: Sequence[Episode],
    make: Callable[[str], Environment],
    *,
    num_workers: int,
    on_result: Callable[[Result], None] = lambda result: None,
    video_path: Callable[[Episode], Path | None] = lambda episode: None,
    track_path: Callable[[Episode], Path | None] = lambda episode: None,
    whole: bool = False,
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
        track_path: where to write the attention points of an episode (`Track.save`), if
            the agent has any; None for nowhere.
        whole: play on to the horizon after success, and see whether it lasts.
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
    tracks: dict[int, Track] = {}
    point_cameras = find_point_cameras(agent)
    tracked = tuple(dict.fromkeys(point_cameras))
    layout = _layout(agent)
    with (
        tqdm(total=len(waiting), unit="episode", disable=not progress) as bar,
        _shared_images(num_workers, agent) as (blocks, names),
        Workers(
            Player,
            [(make, name, layout, control_hz, tracked, whole) for name in names],
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
            tracks[slot] = Track(point_cameras, layout[1])
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
                    task=episode.task,
                    number=episode.number,
                    seed=episode.seed,
                    instruction=state.instruction,
                    success=state.success,
                    steps=state.steps,
                    stage=state.stage,
                    held=state.held,
                    start=state.start,
                    metrics=tracks[slot].measure() if point_cameras else {},
                )
                place = track_path(episode) if point_cameras else None
                if place is not None:
                    tracks[slot].save(place)
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
                if point_cameras:
                    tracks[slot].add(agent.diagnostics(slot), states[slot].sight)
                request = ("step", action, agent.needs_image(slot))
                workers.submit(slot, request, _label(playing[slot]))
    return [results[episode] for episode in episodes]


def find_point_cameras(agent: Agent) -> tuple[str, ...]:
    """Camera of each attention point of an agent; most agents have none."""
    return tuple(getattr(agent, "point_cameras", ()))


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
