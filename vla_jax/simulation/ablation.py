"""Ablations at run time: does the policy look, does it listen?"""

from collections.abc import Mapping, Sequence

import numpy as np

from vla_jax.names import did_you_mean
from vla_jax.simulation.rollout import Agent, find_point_cameras

ABLATIONS = ("nothing", "images", "language", "wrong_language")


def ablate(agent: Agent, what: str, tasks: Sequence[Sequence[str]]) -> Agent:
    """Wraps an agent so that it is deprived of something.

    Args:
        agent: the policy.
        what: "nothing"; "images": all pictures are black; "language": the instruction
            is empty; "wrong_language": the instruction asks for the next of the tasks.
        tasks: every phrasing of every task; the last one is followed by the first.

    Raises:
        ValueError: an unknown name, or a wrong instruction wanted with one task only.
    """
    if what not in ABLATIONS:
        raise ValueError(f"Unknown ablation '{what}'; {did_you_mean(what, ABLATIONS)}")
    if what == "nothing":
        return agent
    if what == "wrong_language" and len(tasks) < 2:
        raise ValueError(
            "wrong_language needs at least two tasks: the instruction of another one "
            "is given. Name more tasks, or choose 'language' for an empty instruction."
        )
    wrong = {}
    for task, following in zip(tasks, [*tasks[1:], *tasks[:1]], strict=True):
        for number, phrasing in enumerate(task):
            wrong[phrasing] = following[number % len(following)]
    return _Ablated(agent, what, wrong)


class _Ablated:
    """An agent that is shown or told something else."""

    def __init__(self, agent: Agent, what: str, wrong: dict[str, str]):
        self._agent = agent
        self._what = what
        self._wrong = wrong
        self.cameras = agent.cameras
        self.image_size = agent.image_size
        self.control_hz = getattr(agent, "control_hz", None)
        self.point_cameras = find_point_cameras(agent)

    def reset(self, slot: int, seed: int) -> None:
        self._agent.reset(slot, seed)

    def needs_image(self, slot: int) -> bool:
        return self._agent.needs_image(slot)

    def diagnostics(self, slot: int) -> Mapping[str, np.ndarray]:
        return self._agent.diagnostics(slot)

    def act(
        self, slots: list[int], observations: list[dict], instructions: list[str]
    ) -> np.ndarray:
        if self._what == "images":
            observations = [_blacken(observation) for observation in observations]
        elif self._what == "language":
            instructions = [""] * len(instructions)
        else:
            instructions = [self._wrong[words] for words in instructions]
        return self._agent.act(slots, observations, instructions)


def _blacken(observation: dict) -> dict:
    image = {c: np.zeros_like(x) for c, x in observation["image"].items()}
    return {**observation, "image": image}
