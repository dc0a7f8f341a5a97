"""What collection and evaluation know about a simulated robot, and how to make one.

Observations are `{"image": {camera: uint8 [h w 3]}, "proprio": f32 [p]}`. Actions are
standard: a single gripper comes last, 1 = open and 0 = closed.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vla_jax.data.windows import rates_match
from vla_jax.names import did_you_mean

ENVIRONMENTS = ("aloha", "libero", "metaworld")


class NoSkill(ValueError):
    """The scripted expert of a simulator cannot play a task."""


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
        grippers: dimensions of an action that open and close something.
        demonstration: steps of every demonstration, which must then end in success;
            None where it ends some steps after the first success.
        stages: names of the stages whose number is the reward, the last one being
            success; empty where rewards mean something else.
        objects: names of the objects whose poses `object_poses` tells; empty where it
            tells none. Where there are some, there are also `camera_matrices`. An
            environment may lack `stages` and `objects`.
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
    grippers: tuple[int, ...]
    demonstration: int | None
    stages: tuple[str, ...]
    objects: tuple[str, ...]

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

    def object_poses(self) -> np.ndarray:
        """Present poses of `objects`, [o, 7]: metres and xyzw, base frame."""

    def camera_matrices(self, camera: str) -> tuple[np.ndarray, np.ndarray]:
        """Present intrinsics [3, 3] in pixels and extrinsics [4, 4], camera from base.

        0, 0 is the corner of the first pixel; the camera looks along +z, y down.
        """

    def close(self) -> None:
        """Frees the renderer."""


def make_environment(
    name: str,
    task: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    cameras: Sequence[str] | None = None,
    primary: str | None = None,
    horizon: int | None = None,
    cheap: bool = True,
    depth: bool = False,
    variant: str = "none",
) -> Environment:
    """Makes one environment in this process.

    Args:
        name: one of `ENVIRONMENTS`.
        task: name of a task of that environment.
        image_size: of the pictures, in pixels: (height, width), or one for both; None
            for the default of the environment.
        cameras: standard names of the cameras to render; others cost nothing. None for
            the default of the environment.
        primary: the simulator's camera behind "primary"; None for the default.
        horizon: steps after which an attempt counts as failed; None for the default.
        cheap: render without shadows, reflections and multisampling, more than ten
            times as fast.
        depth: observations also hold `depth`, camera to float32 [h w] in metres.
        variant: a disturbance, one of `list_variants`.

    Raises:
        ValueError: an unknown environment, task, camera or variant; alternatives are
            listed. Depth of an environment that has none.
    """
    adapter = _adapter(name)
    if depth and not adapter.HAS_DEPTH:
        raise ValueError(f"{name} gives no depth images; aloha does.")
    if variant not in adapter.VARIANTS:
        raise ValueError(
            f"Unknown {name} variant '{variant}'; "
            f"{did_you_mean(variant, adapter.VARIANTS)}"
        )
    extra = {"depth": depth, "variant": variant} if adapter.HAS_DEPTH else {}
    return adapter.ENVIRONMENT(
        task,
        image_size=adapter.DEFAULT_IMAGE_SIZE if image_size is None else image_size,
        cameras=tuple(adapter.DEFAULT_CAMERAS if cameras is None else cameras),
        primary=primary,
        horizon=horizon,
        cheap=cheap,
        **extra,
    )


def list_tasks(name: str) -> tuple[str, ...]:
    """Names of all tasks of an environment, sorted."""
    return _adapter(name).TASKS


def phrasings(name: str, task: str) -> tuple[str, ...]:
    """Every instruction that a task of an environment may be given with."""
    return _adapter(name).INSTRUCTIONS[task]


def list_stages(name: str, task: str) -> tuple[str, ...]:
    """Names of the stages of a task, empty where it has none."""
    return _adapter(name).STAGES.get(task, ())


def list_variants(name: str) -> tuple[str, ...]:
    """Disturbances that an environment can be evaluated with; "none" is one of them."""
    return tuple(_adapter(name).VARIANTS)


def default_views(name: str) -> tuple[tuple[str, ...], int | tuple[int, int]]:
    """The cameras of an environment and their size, unless one asks for others."""
    adapter = _adapter(name)
    return adapter.DEFAULT_CAMERAS, adapter.DEFAULT_IMAGE_SIZE


def dimensions(name: str) -> tuple[int, int]:
    """Sizes of `proprio` and of an action of an environment, without building one."""
    adapter = _adapter(name).ENVIRONMENT
    return adapter.proprio_dim, adapter.action_dim


def require_installed(name: str) -> None:
    """Raises RuntimeError, with the remedy, where an environment's package is missing.

    Asked before worker processes start, whose errors are long.
    """
    _adapter(name).require_installed()


def fixed_starts(name: str) -> int:
    """How many fixed initial states every task has; 0 where all starts are drawn.

    `reset` takes their numbers as seeds.
    """
    return _adapter(name).FIXED_STARTS


def dataset_name(name: str, tasks: Sequence[str]) -> str:
    """What demonstrations of some tasks are called, as a data set."""
    return _adapter(name).dataset_name(tasks)


def check_tasks(name: str, tasks: Sequence[str]) -> tuple[str, ...]:
    """Returns names of tasks, with those of groups such as "libero_object" in place.

    Raises:
        ValueError: none, an unknown or a repeated one.
    """
    groups = _adapter(name).GROUPS
    known = list_tasks(name)
    tasks = [each for task in tasks for each in groups.get(task, (task,))]
    if not tasks:
        raise ValueError(f"No tasks given; choose from {', '.join(known)}.")
    for task in tasks:
        if task not in known:
            raise ValueError(
                f"Unknown {name} task {task!r}; {did_you_mean(task, [*groups, *known])}"
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
    """The module behind an environment's name; imported late, it needs an extra."""
    if name not in ENVIRONMENTS:
        raise ValueError(
            f"Unknown environment {name!r}; {did_you_mean(name, ENVIRONMENTS)}"
        )
    if name == "aloha":
        from vla_jax.simulation import aloha

        return aloha
    if name == "libero":
        from vla_jax.simulation.libero import adapter

        return adapter
    from vla_jax.simulation import metaworld

    return metaworld
