"""Meta-World: 50 tasks of a Sawyer arm, each with a scripted expert.

Standard actions are the hand's displacement (x, y, z in [-1, 1], 1 = 1 cm per step)
and the opening of the gripper (1 = open, 0 = closed); Meta-World's own last number is
an effort, -1 when open and 0.6 when closed. `proprio` is the hand's position in metres,
robot base frame, and the gripper's opening from 0 to 1. The goal, which Meta-World
hides from policies, is visible in the pictures as a small sphere where a task has one.

The experts open with efforts from -1 to 0.5 and close with 0.6 to 1, each task in its
own way, so that a threshold could not tell one from the other. Here they open with -1
and close with 0.6, except in the two tasks that need a gentler grip; 1 would squeeze a
ball or a peg away.
"""

import importlib.util
import sys
import warnings
from collections.abc import Sequence

import numpy as np

from vla_jax.data.standardize import METAWORLD_CLOSED
from vla_jax.names import did_you_mean
from vla_jax.simulation.environment import check_tasks
from vla_jax.simulation.instructions import INSTRUCTIONS
from vla_jax.simulation.rendering import (
    Renderers,
    camera_matrices,
    choose_backend,
)

TASKS = tuple(sorted(INSTRUCTIONS))

# Meta-World mounts its corner cameras upside down.
PRIMARY_CAMERAS = {
    "corner": True,
    "corner2": True,
    "corner3": True,
    "corner4": True,
    "topview": False,
    "behindGripper": False,
}
_WRIST = "gripperPOV"
_CLOSING = 0.55  # effort from which an expert means to close
# Their experts hold with an effort of 0.1; 0.6 loses what they hold.
_GENTLE = ("peg-unplug-side", "pick-out-of-hole")
DEFAULT_PRIMARY = "corner2"
DEFAULT_HORIZON = 200  # steps; the experts need 30 to 190
DEFAULT_IMAGE_SIZE = 128
DEFAULT_CAMERAS = ("primary", "wrist")
HAS_DEPTH = False
FIXED_STARTS = 0
GROUPS: dict[str, tuple[str, ...]] = {}
VARIANTS = ("none",)
STAGES: dict[str, tuple[str, ...]] = {}


class MetaWorld:
    """One Meta-World task; see `environment.Environment` for the attributes.

    The seed of `reset` alone pins the initial state (object, goal, arm) and the
    phrasing of the instruction: what was played before has no influence.
    """

    proprio_dim = 4
    action_dim = 4
    grippers = (3,)
    demonstration = None
    stages = ()
    objects = ()

    def __init__(
        self,
        task: str,
        *,
        image_size: int | tuple[int, int] = 128,
        cameras: tuple[str, ...] = ("primary", "wrist"),
        primary: str | None = None,
        horizon: int | None = None,
        cheap: bool = True,
    ):
        """Builds the simulation; the renderer follows when the first picture is due.

        Args:
            task: one of `TASKS`.
            image_size: of the pictures, in pixels: (height, width), or one for both.
            cameras: which of "primary" and "wrist" to render; may be empty.
            primary: the camera behind "primary", one of `PRIMARY_CAMERAS`; None for
                `DEFAULT_PRIMARY`.
            horizon: steps after which an attempt counts as failed; None for
                `DEFAULT_HORIZON`.
            cheap: without shadows, reflections and multisampling.

        Raises:
            ValueError: an unknown name (alternatives are listed) or a bad number.
        """
        check_tasks("metaworld", [task])
        for camera in cameras:
            if camera not in ("primary", "wrist"):
                raise ValueError(
                    f"Unknown camera '{camera}'; "
                    f"{did_you_mean(camera, ('primary', 'wrist'))}"
                )
        primary = DEFAULT_PRIMARY if primary is None else primary
        horizon = DEFAULT_HORIZON if horizon is None else horizon
        if primary not in PRIMARY_CAMERAS:
            raise ValueError(
                f"Unknown primary camera '{primary}'; "
                f"{did_you_mean(primary, PRIMARY_CAMERAS)}"
            )
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}; expected at least 1.")
        if isinstance(image_size, int):
            image_size = (image_size, image_size)
        if min(image_size) < 1:
            raise ValueError(f"image_size is {image_size}; expected at least 1.")
        choose_backend(needed=bool(cameras))
        self.task = task
        self.cameras = tuple(cameras)
        self.image_size = tuple(image_size)
        self.horizon = horizon
        self.instructions = INSTRUCTIONS[task]
        self.instruction = self.instructions[0]
        self._simulator, self._expert = _make_simulator(f"{task}-v3")
        self.control_hz = float(1 / self._simulator.dt)
        self._names = {"primary": primary, "wrist": _WRIST}
        self._renderers = Renderers(self._simulator.model, cheap=cheap)
        self._full = None

    def reset(self, seed: int, *, render: bool = True) -> dict:
        """Starts the episode of `seed`; returns its first observation."""
        import mujoco

        simulator = self._simulator
        # Meta-World resets the arm before it clears the old state; clear it first.
        mujoco.mj_resetData(simulator.model, simulator.data)
        simulator.seed(seed)
        self._full, _ = simulator.reset()
        # Bodies and sites that the reset moved reach the picture only through this.
        mujoco.mj_forward(simulator.model, simulator.data)
        # A second stream, so that phrasing and object pose are independent.
        drawn = np.random.default_rng([seed, 1]).integers(len(self.instructions))
        self.instruction = self.instructions[drawn]
        return self._observation(render)

    def step(
        self, action: np.ndarray, *, render: bool = True
    ) -> tuple[dict, float, bool]:
        """Plays one standard action [4]; values beyond the limits are clipped.

        Raises:
            ValueError: an action of another size, not finite, or before `reset`.
        """
        native = self.native_action(action)
        if self._full is None:
            raise ValueError("step was called before reset.")
        self._full, reward, _, _, info = self._simulator.step(native)
        return self._observation(render), float(reward), bool(info["success"])

    def expert_action(self) -> np.ndarray:
        """The scripted expert's standard action [4], clipped to the limits."""
        if self._full is None:
            raise ValueError("expert_action was called before reset.")
        with warnings.catch_warnings():
            # "Constant(s) may be too high": the action is clipped below, as intended.
            warnings.simplefilter("ignore")
            native = self._expert.get_action(self._full)
        native = np.clip(np.asarray(native, np.float32), -1, 1)
        closed = METAWORLD_CLOSED
        if self.task in _GENTLE:
            native[3] = (closed - native[3]) / (closed + 1)
        else:
            native[3] = native[3] < _CLOSING
        return native

    def native_action(self, action: np.ndarray) -> np.ndarray:
        """Standard action [4] to Meta-World's, clipped to its limits, f32 [4]."""
        action = np.array(action, np.float32)
        if action.shape != (self.action_dim,):
            raise ValueError(
                f"An action of shape {action.shape} came; metaworld takes "
                f"({self.action_dim},): x, y, z and the gripper, 1 = open."
            )
        if not np.isfinite(action).all():
            raise ValueError(f"The action {action.tolist()} is not finite.")
        action[3] = METAWORLD_CLOSED - (1 + METAWORLD_CLOSED) * action[3]
        return np.clip(action, -1, 1)

    def camera_matrices(self, camera: str) -> tuple[np.ndarray, np.ndarray]:
        """Present intrinsics [3, 3] in pixels and extrinsics [4, 4], camera from base.

        Args:
            camera: standard name. That on the wrist moves.
        """
        name, simulator = self._names[camera], self._simulator
        inner, outer = camera_matrices(
            simulator.model, simulator.data, name, self.image_size
        )
        if PRIMARY_CAMERAS.get(name, False):
            outer[:2] *= -1  # as its picture is turned
        return inner, outer

    def frame(self, size: int) -> np.ndarray:
        """A picture of the present state for people, uint8 [size, size, 3]."""
        return self._picture("primary", (size, size))

    def close(self) -> None:
        """Frees the renderers; the next picture makes a new one."""
        self._renderers.close()

    def _observation(self, render: bool) -> dict:
        image = {}
        if render:
            image = {c: self._picture(c, self.image_size) for c in self.cameras}
        return {"image": image, "proprio": self._full[:4].astype(np.float32)}

    def _picture(self, camera: str, size: tuple[int, int]) -> np.ndarray:
        name = self._names[camera]
        picture = self._renderers.picture(self._simulator.data, name, size)
        if PRIMARY_CAMERAS.get(name, False):
            picture = np.ascontiguousarray(picture[::-1, ::-1])
        return picture


def _make_simulator(name: str):
    """Meta-World's environment, free to vary and showing the goal, and its expert."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP

        simulator = ALL_V3_ENVIRONMENTS[name]()
    # The expert needs the goal. The observation's bounds were computed without it.
    simulator._partially_observable = False
    simulator.__dict__.pop("sawyer_observation_space", None)
    simulator.observation_space = simulator.sawyer_observation_space
    # Draw object and goal from the generator that `seed` sets, at every reset.
    simulator._freeze_rand_vec = False
    simulator.seeded_rand_vec = True
    simulator._set_task_called = True
    # Whoever plays counts the steps; Meta-World would refuse the 501st.
    simulator.max_path_length = sys.maxsize
    return simulator, ENV_POLICY_MAP[name]()


def require_installed() -> None:
    """Raises RuntimeError, with the remedy, where the simulator is missing."""
    if importlib.util.find_spec("metaworld") is None:
        raise RuntimeError(
            "metaworld is not installed; run `pip install 'vla_jax[sim]'`."
        )


def dataset_name(tasks: Sequence[str]) -> str:
    """What demonstrations of any tasks are called."""
    del tasks
    return "metaworld"


ENVIRONMENT = MetaWorld
