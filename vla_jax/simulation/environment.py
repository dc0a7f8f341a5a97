"""What collection and evaluation know about a simulated robot, and how to make one.

Observations are `{"image": {camera: uint8 [h w 3]}, "proprio": f32 [p]}`. Actions are
standard: the gripper last, 1 = open and 0 = closed.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vla_jax.data.windows import rates_match
from vla_jax.names import did_you_mean

ENVIRONMENTS = ("metaworld",)


class Environment(Protocol):
    """One task of one simulated robot.

    Attributes:
        task: name of the task.
        instruction: what to do, in words; drawn by the seed of `reset`.
        instructions: every phrasing that `instruction` is drawn from.
        cameras: names of the images in an observation.
        image_size: height and width of every image.
        proprio_dim: size of `proprio`.
        action_dim: size of an action.
        horizon: steps after which an attempt counts as failed.
        control_hz: actions per second.
    """

    task: str
    instruction: str
    instructions: tuple[str, ...]
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    proprio_dim: int
    action_dim: int
    horizon: int
    control_hz: float

    def reset(self, seed: int, *, render: bool = True) -> dict:
        """Starts the episode that `seed` pins down; returns the first observation."""

    def step(
        self, action: np.ndarray, *, render: bool = True
    ) -> tuple[dict, float, bool]:
        """Plays one standard action [a].

        Without `render` the observation's `image` is empty, which is much faster.

        Returns:
            observation, reward, and whether the task is solved in the new state.
        """

    def expert_action(self) -> np.ndarray:
        """The scripted expert's standard action [a] in the present state."""

    def native_action(self, action: np.ndarray) -> np.ndarray:
        """A standard action in the units of the simulator, clipped to its limits."""

    def frame(self, size: int) -> np.ndarray:
        """A picture of the present state for people, uint8 [size, size, 3]."""

    def close(self) -> None:
        """Frees the renderer."""


def make_environment(
    name: str,
    task: str,
    *,
    image_size: int | tuple[int, int] = 128,
    cameras: Sequence[str] = ("primary", "wrist"),
    primary: str | None = None,
    horizon: int | None = None,
    cheap: bool = True,
) -> Environment:
    """Makes one environment in this process.

    Args:
        name: one of `ENVIRONMENTS`.
        task: name of a task of that environment.
        image_size: of the pictures, in pixels: (height, width), or one for both.
        cameras: standard names of the cameras to render; others cost nothing.
        primary: the simulator's camera behind "primary"; None for the default.
        horizon: steps after which an attempt counts as failed; None for the default.
        cheap: render without shadows, reflections and multisampling, more than ten
            times as fast.

    Raises:
        ValueError: an unknown environment, task or camera; alternatives are listed.
    """
    return _adapter(name).MetaWorld(
        task,
        image_size=image_size,
        cameras=tuple(cameras),
        primary=primary,
        horizon=horizon,
        cheap=cheap,
    )


def list_tasks(name: str) -> tuple[str, ...]:
    """Names of all tasks of an environment, sorted."""
    return _adapter(name).TASKS


def phrasings(name: str, task: str) -> tuple[str, ...]:
    """Every instruction that a task of an environment may be given with."""
    return _adapter(name).INSTRUCTIONS[task]


def dimensions(name: str) -> tuple[int, int]:
    """Sizes of `proprio` and of an action of an environment, without building one."""
    adapter = _adapter(name).MetaWorld
    return adapter.proprio_dim, adapter.action_dim


def check_tasks(name: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """Returns `tasks` as a tuple; raises ValueError at an unknown or repeated one."""
    known = list_tasks(name)
    if not tasks:
        raise ValueError(f"No tasks given; choose from {', '.join(known)}.")
    for task in tasks:
        if task not in known:
            raise ValueError(
                f"Unknown {name} task {task!r}; {did_you_mean(task, known)}"
            )
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"A task is named twice in {', '.join(tasks)}.")
    return tuple(tasks)


def check_rate(environment: Environment, control_hz: float) -> None:
    """Refuses to play a policy at another rate than it was trained for.

    A displacement meant for a longer step moves a robot too far, and one for a shorter
    step not far enough, so a rate may be off by a quarter at most.

    Args:
        environment: where the policy is to act.
        control_hz: actions per second that the policy was trained for.

    Raises:
        ValueError: the rates differ, with what to train with instead.
    """
    if rates_match(control_hz, environment.control_hz):
        return
    raise ValueError(
        f"The policy was trained to act at {control_hz:g} Hz, but task "
        f"'{environment.task}' is controlled at {environment.control_hz:g} Hz. Train "
        f"it with target_hz={environment.control_hz:g} in data.datasets (which takes "
        "data that was recorded at this rate or faster), or correct the control_hz of "
        "the data set's spec if that is what is wrong."
    )


def episode_seed(purpose: str, seed: int, task: str, number: int) -> int:
    """Seed of one episode, from what it is for, the run's seed, task and number.

    Two purposes ("collect", "evaluate") never share a stream of seeds, even for equal
    `seed`. 31 bits: every generator takes such a number, and every JSON reader.
    """
    name = f"{purpose}/{seed}/{task}/{number}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "little") >> 1


def _adapter(name: str):
    """The module behind an environment's name; imported late, it needs the extra."""
    if name not in ENVIRONMENTS:
        raise ValueError(
            f"Unknown environment {name!r}; {did_you_mean(name, ENVIRONMENTS)}"
        )
    from vla_jax.simulation import metaworld

    return metaworld
