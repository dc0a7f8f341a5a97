"""One demonstration of a scripted expert, as RLDS steps in Open-X form."""

import dataclasses
from collections.abc import Callable

import numpy as np

from vla_jax.data.write import Image, Tensor, Text, encode_image
from vla_jax.names import did_you_mean
from vla_jax.simulation.environment import (
    Environment,
    default_views,
    dimensions,
    episode_seed,
)

METADATA_FEATURES = {
    "task": Text(),
    "seed": Tensor(np.int64),
    "attempt": Tensor(np.int64),
    "success": Tensor(np.bool_),
}
# What published data sets of the same robot call the cameras.
FEATURES = {
    "aloha": {
        "primary": "top",
        "secondary": "angle",
        "wrist": "right_wrist",
        "wrist_left": "left_wrist",
    },
    "libero": {"primary": "image", "wrist": "wrist_image"},
    "metaworld": {"primary": "image", "wrist": "wrist_image"},
}
# Not LIBERO, whose published data sets have none.
_WITH_MATRICES = ("aloha", "metaworld")
MAX_OBJECTS = 2  # of one data set, whatever its tasks
_MILLIMETERS = 1000.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an attempt depends on besides its task and number.

    Attributes:
        environment: name of the simulator.
        seed: of the collection.
        image_size: of all cameras in pixels, height and width, or one for both.
        primary: the simulator's camera behind "primary"; None for the default.
        horizon: steps after which an attempt has failed; None for the default.
        action_noise: standard deviation of the noise that is added to the motion which
            is executed (then clipped), while the expert's own action is recorded; in
            units of the action. What it teaches are the expert's corrections (DART,
            Laskey et al., 2017).
        hold_steps: steps recorded after success, where demonstrations end with it.
        cheap: render without shadows, reflections and multisampling.
        cameras: standard names of those to record; None for the environment's default.
        depth: those of them whose depth is recorded too, in millimetres; None for none.
    """

    environment: str = "metaworld"
    seed: int = 0
    image_size: int | tuple[int, int] = 128
    primary: str | None = None
    horizon: int | None = None
    action_noise: float = 0.0
    hold_steps: int = 5
    cheap: bool = True
    cameras: tuple[str, ...] | None = None
    depth: tuple[str, ...] | None = None

    def __post_init__(self):
        smallest = min(self.size)
        if self.action_noise < 0 or self.hold_steps < 0 or smallest < 8:
            raise ValueError(
                f"action_noise is {self.action_noise}, hold_steps {self.hold_steps}, "
                f"image_size {self.image_size}; expected at least 0, 0 and 8."
            )
        if self.environment not in FEATURES:
            return  # refused, with the alternatives, where environments are made
        known = FEATURES[self.environment]
        for camera in self.views:
            if camera not in known:
                raise ValueError(
                    f"Unknown camera '{camera}'; {did_you_mean(camera, known)}"
                )
        for camera in self.depth or ():
            if camera not in self.views:
                raise ValueError(
                    f"The depth of camera '{camera}' is wanted; {self.environment} is "
                    f"recorded with the cameras {list(self.views)}."
                )
        if self.environment == "aloha" and self.primary not in (None, "top"):
            raise ValueError(
                f"primary is '{self.primary}', but what is recorded as 'top' must be "
                "the view from the top; record others with --cameras."
            )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return tuple(self.image_size)

    @property
    def views(self) -> tuple[str, ...]:
        """Standard names of the cameras that are recorded."""
        if self.cameras is None:
            return default_views(self.environment)[0]
        return self.cameras


def step_features(recipe: Recipe) -> dict:
    """Features of one step, in Open-X form."""
    proprio_dim, action_dim = dimensions(recipe.environment)
    names = FEATURES[recipe.environment]
    observation = {"state": Tensor(np.float32, (proprio_dim,))}
    for camera in recipe.views:
        observation[names[camera]] = Image(*recipe.size, 3, "jpeg")
    for camera in recipe.depth or ():
        depth = Image(*recipe.size, 1, "png", np.uint16)
        observation[f"{names[camera]}_depth"] = depth
    if recipe.environment == "libero":
        observation["joint_state"] = Tensor(np.float32, (7,))
    if recipe.environment == "aloha":
        observation["objects"] = Tensor(np.float32, (MAX_OBJECTS, 7))
    if recipe.environment in _WITH_MATRICES:
        for camera in recipe.views:
            for key, size in (("intrinsics", 3), ("extrinsics", 4)):
                matrix = Tensor(np.float32, (size, size))
                observation[f"{names[camera]}_{key}"] = matrix
    return {
        "observation": observation,
        "action": Tensor(np.float32, (action_dim,)),
        "language_instruction": Text(),
        "reward": Tensor(np.float32),
        "discount": Tensor(np.float32),
        "is_first": Tensor(np.bool_),
        "is_last": Tensor(np.bool_),
        "is_terminal": Tensor(np.bool_),
    }


def collect_episode(
    environment: Environment,
    recipe: Recipe,
    number: int,
    *,
    start: int | None = None,
    encode: Callable[[str, Image, np.ndarray], bytes] = encode_image,
) -> tuple[dict, dict]:
    """Plays one attempt of the expert.

    Args:
        environment: the task, with the recipe's cameras.
        recipe: what the attempt depends on besides task and number.
        number: of the attempt.
        start: seed of the initial state; None for one of the attempt's own.
        encode: what becomes of every picture at once, since hundreds of large ones
            would fill the memory.

    Returns:
        steps: nested like `step_features`, time first, images encoded; actions in the
            simulator's own units, as the expert gave them.
        metadata: of the episode; `success` says whether it may be kept.
    """
    features = step_features(recipe)["observation"]
    seed = episode_seed("collect", recipe.seed, environment.task, number)
    noise = np.random.default_rng([seed, 2])
    # The grippers stay clean: an object dropped is not a correction to learn.
    arms = np.delete(np.arange(environment.action_dim), environment.grippers)
    observation = environment.reset(seed if start is None else start)
    recorded: dict[str, list] = {key: [] for key in features}
    actions, rewards = [], []
    end = environment.demonstration or environment.horizon
    success = False
    while len(actions) < end:
        step = _record(environment, observation, features, recipe, encode)
        for key, value in step.items():
            recorded[key].append(value)
        action = environment.expert_action()
        actions.append(environment.native_action(action))
        executed = action.copy()
        executed[arms] += recipe.action_noise * noise.standard_normal(len(arms))
        observation, reward, solved = environment.step(executed)
        rewards.append(reward)
        if environment.demonstration is not None:
            success = solved  # in the end, not on the way
        elif solved and not success:
            success = True
            end = len(actions) + recipe.hold_steps
    length = len(actions)
    last = np.arange(length) == length - 1
    steps = {
        "observation": {
            key: values if isinstance(features[key], Image) else np.array(values, "f4")
            for key, values in recorded.items()
        },
        "action": np.array(actions, np.float32),
        "language_instruction": [environment.instruction] * length,
        "reward": np.array(rewards, np.float32),
        "discount": np.where(last & success, 0, 1).astype(np.float32),
        "is_first": np.arange(length) == 0,
        "is_last": last,
        "is_terminal": last & success,
    }
    metadata = {
        "task": environment.task,
        "seed": seed,
        "attempt": number,
        "success": success,
    }
    return steps, metadata


def _record(
    environment: Environment,
    observation: dict,
    features: dict,
    recipe: Recipe,
    encode: Callable[[str, Image, np.ndarray], bytes],
) -> dict:
    """One observation under the names of the data set, images encoded."""
    names = FEATURES[recipe.environment]
    step = {"state": observation["proprio"]}
    for camera, image in observation["image"].items():
        name = names[camera]
        step[name] = encode(name, features[name], image)
        if f"{name}_intrinsics" in features:
            matrices = environment.camera_matrices(camera)
            step[f"{name}_intrinsics"], step[f"{name}_extrinsics"] = matrices
    for camera in recipe.depth or ():
        name = f"{names[camera]}_depth"
        depth = np.rint(observation["depth"][camera] * _MILLIMETERS)
        depth = np.clip(depth, 0, np.iinfo(np.uint16).max).astype(np.uint16)
        step[name] = encode(name, features[name], depth[..., None])
    if "joint_state" in features:
        step["joint_state"] = observation["joint_state"]
    if "objects" in features:
        # Zeros where a task has fewer; no rotation has the quaternion zero.
        poses = np.zeros((MAX_OBJECTS, 7))
        poses[: len(environment.objects)] = environment.object_poses()
        step["objects"] = poses
    return step
