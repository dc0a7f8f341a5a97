"""One demonstration of a scripted expert, as RLDS steps in Open-X form."""

import dataclasses

import numpy as np

from vla_jax.data.write import Image, Tensor, Text
from vla_jax.simulation.environment import Environment, episode_seed

METADATA_FEATURES = {
    "task": Text(),
    "seed": Tensor(np.int64),
    "attempt": Tensor(np.int64),
    "success": Tensor(np.bool_),
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What an attempt depends on besides its task and number.

    Attributes:
        environment: name of the simulator.
        seed: of the collection.
        image_size: height and width of both cameras, in pixels.
        primary: the simulator's camera behind "primary"; None for the default.
        horizon: steps after which an attempt has failed; None for the default.
        action_noise: standard deviation of the noise that is added to the motion which
            is executed (then clipped), while the expert's own action is recorded; in
            units of the action. What it teaches are the expert's corrections (DART,
            Laskey et al., 2017).
        hold_steps: steps recorded after success.
        cheap: render without shadows, reflections and multisampling.
    """

    environment: str = "metaworld"
    seed: int = 0
    image_size: int = 128
    primary: str | None = None
    horizon: int | None = None
    action_noise: float = 0.0
    hold_steps: int = 5
    cheap: bool = True

    def __post_init__(self):
        if self.action_noise < 0 or self.hold_steps < 0 or self.image_size < 8:
            raise ValueError(
                f"action_noise is {self.action_noise}, hold_steps {self.hold_steps}, "
                f"image_size {self.image_size}; expected at least 0, 0 and 8."
            )


def step_features(image_size: int, proprio_dim: int, action_dim: int) -> dict:
    """Features of one step, in Open-X form."""
    image = Image(image_size, image_size, 3, "jpeg")
    return {
        "observation": {
            "image": image,
            "wrist_image": image,
            "state": Tensor(np.float32, (proprio_dim,)),
        },
        "action": Tensor(np.float32, (action_dim,)),
        "language_instruction": Text(),
        "reward": Tensor(np.float32),
        "discount": Tensor(np.float32),
        "is_first": Tensor(np.bool_),
        "is_last": Tensor(np.bool_),
        "is_terminal": Tensor(np.bool_),
    }


def collect_episode(
    environment: Environment, recipe: Recipe, number: int
) -> tuple[dict, dict]:
    """Plays one attempt of the expert.

    Returns:
        steps: nested like `step_features`, time first; actions in the simulator's own
            units, as the expert gave them.
        metadata: of the episode; `success` says whether it may be kept.
    """
    seed = episode_seed("collect", recipe.seed, environment.task, number)
    noise = np.random.default_rng([seed, 2])
    observation = environment.reset(seed)
    images, wrist_images, states, actions, rewards = [], [], [], [], []
    end = environment.horizon
    success = False
    while len(actions) < end:
        images.append(observation["image"]["primary"])
        wrist_images.append(observation["image"]["wrist"])
        states.append(observation["proprio"])
        action = environment.expert_action()
        actions.append(environment.native_action(action))
        executed = action.copy()
        # The gripper stays clean: an object dropped is not a correction to learn.
        executed[:-1] += recipe.action_noise * noise.standard_normal(len(action) - 1)
        observation, reward, solved = environment.step(executed)
        rewards.append(reward)
        if solved and not success:
            success = True
            end = len(actions) + recipe.hold_steps
    length = len(actions)
    last = np.arange(length) == length - 1
    steps = {
        "observation": {
            "image": images,
            "wrist_image": wrist_images,
            "state": np.array(states, np.float32),
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
