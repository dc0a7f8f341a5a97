"""ALOHA in simulation: two arms with fourteen joint targets at 50 Hz.

Standard actions are absolute joint positions, left arm (six, radians), left gripper
(0 closed, 1 open), right arm, right gripper; `proprio` holds the same of the present
state. They are never clipped to a box: MuJoCo applies the limits of the motors, which
go beyond the [-1, 1] that gym-aloha declares. The scenes, start poses and rewards are
gym-aloha's; the frame of poses and cameras is that of the table, between the arms.
"""

import importlib.util
from collections.abc import Sequence

import numpy as np

from vla_jax.names import did_you_mean
from vla_jax.simulation.aloha_expert import NUM_STEPS, Planner
from vla_jax.simulation.aloha_scene import (
    CONTROL_HZ,
    SCENES,
    advance,
    draw_start,
    load_model,
    native_control,
    read_contacts,
    read_joints,
    read_objects,
    settle,
    start,
)
from vla_jax.simulation.aloha_variants import VARIANTS, Appearance
from vla_jax.simulation.rendering import (
    Renderers,
    camera_matrices,
    choose_backend,
)

TASKS = tuple(sorted(SCENES))
STAGES = {task: scene.stages for task, scene in SCENES.items()}
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "insertion": (
        "insert the red peg into the blue socket",
        "pick up the peg and the socket and put them together",
        "push the red stick into the blue tube",
        "take the socket with the left arm, the peg with the right, and join them",
        "plug the peg into the socket",
    ),
    "transfer_cube": (
        "pick up the red cube with the right arm and hand it to the left arm",
        "transfer the cube to the left gripper",
        "pass the red block from the right hand to the left hand",
        "hand over the cube",
        "give the red cube to the other arm",
    ),
}
# Standard names of the simulator's cameras. "primary" may be another fixed one.
CAMERAS = {
    "primary": "top",
    "secondary": "angle",
    "wrist": "right_wrist",
    "wrist_left": "left_wrist",
}
PRIMARY_CAMERAS = ("angle", "front_close", "left_pillar", "right_pillar", "top")
DEFAULT_HORIZON = 400  # steps, as in the published evaluation
DEFAULT_IMAGE_SIZE = (480, 640)
DEFAULT_CAMERAS = ("primary",)
HAS_DEPTH = True
FIXED_STARTS = 0
GROUPS: dict[str, tuple[str, ...]] = {}


class Aloha:
    """One ALOHA task; see `environment.Environment` for the attributes.

    The seed of `reset` alone pins the start poses, the phrasing of the instruction and
    the disturbance.
    """

    proprio_dim = 14
    action_dim = 14
    grippers = (6, 13)
    control_hz = CONTROL_HZ
    demonstration = NUM_STEPS

    def __init__(
        self,
        task: str,
        *,
        image_size: int | tuple[int, int] = DEFAULT_IMAGE_SIZE,
        cameras: Sequence[str] = DEFAULT_CAMERAS,
        primary: str | None = None,
        horizon: int | None = None,
        cheap: bool = True,
        depth: bool = False,
        variant: str = "none",
    ):
        """Builds the simulation; the renderer follows when the first picture is due.

        Args:
            task: one of `TASKS`.
            image_size: of the pictures, in pixels: (height, width), or one for both.
            cameras: which of `CAMERAS` to render; may be empty.
            primary: the camera behind "primary", one of `PRIMARY_CAMERAS`; None for
                the one above the table.
            horizon: steps after which an attempt counts as failed; None for
                `DEFAULT_HORIZON`.
            cheap: without shadows, reflections and multisampling.
            depth: observations also hold `depth`, camera to float32 [h w] in metres.
            variant: a disturbance, one of `aloha_variants.VARIANTS`.

        Raises:
            ValueError: an unknown name (alternatives are listed) or a bad number.
        """
        primary = CAMERAS["primary"] if primary is None else primary
        horizon = DEFAULT_HORIZON if horizon is None else horizon
        if isinstance(image_size, int):
            image_size = (image_size, image_size)
        _check(task, tuple(image_size), cameras, primary, horizon, variant)
        choose_backend(needed=bool(cameras))
        import mujoco

        self.task = task
        self.cameras = tuple(cameras)
        self.image_size = tuple(image_size)
        self.horizon = horizon
        self.instructions = INSTRUCTIONS[task]
        self.instruction = self.instructions[0]
        self.stages = SCENES[task].stages
        self.objects = SCENES[task].objects
        self._names = {**CAMERAS, "primary": primary}
        self._depth = depth
        self._variant = VARIANTS[variant]
        self._model = load_model(task, edit=self._variant.edit)
        self._data = mujoco.MjData(self._model)
        self._appearance = Appearance(self._model)
        self._renderers = Renderers(self._model, cheap=cheap)
        self._planner: Planner | None = None
        self._plan: np.ndarray | None = None
        self._start: np.ndarray | None = None
        self._drawn = None
        self._steps = 0

    def reset(self, seed: int, *, render: bool = True) -> dict:
        """Starts the episode of `seed`; returns its first observation."""
        self._start = draw_start(self.task, seed)
        self._plan, self._steps = None, 0
        self._appearance.restore()
        # Streams of their own, so that phrasing, pose and disturbance are independent.
        drawn = np.random.default_rng([seed, 1]).integers(len(self.instructions))
        self.instruction = self.instructions[drawn]
        self._drawn = self._variant.draw(
            self._model,
            np.random.default_rng([seed, 3]),
            self._start,
            SCENES[self.task].ranges,
        )
        start(self._model, self._data, self._start)
        self._variant.apply(self._model, self._data, self._drawn, 0)
        settle(self._model, self._data)
        return self._observation(render)

    def step(
        self, action: np.ndarray, *, render: bool = True
    ) -> tuple[dict, float, bool]:
        """Plays one action [14]; the reward counts the stages, 4 is success.

        Raises:
            ValueError: an action of another size, not finite, or before `reset`.
        """
        action = self.native_action(action)
        if self._start is None:
            raise ValueError("step was called before reset.")
        self._variant.apply(self._model, self._data, self._drawn, self._steps)
        self._data.ctrl[:] = native_control(action)
        advance(self._model, self._data)
        self._steps += 1
        reward = SCENES[self.task].stage(read_contacts(self._model, self._data))
        return self._observation(render), float(reward), reward == len(self.stages)

    def expert_action(self) -> np.ndarray:
        """The scripted expert's joint targets [14] of this step.

        The whole demonstration is planned from the start pose at the first call; the
        expert does not look at what happens afterwards.
        """
        if self._start is None:
            raise ValueError("expert_action was called before reset.")
        if self._planner is None:
            self._planner = Planner(self.task)
        if self._plan is None:
            self._plan = self._planner.plan(self._start)
        return self._plan[min(self._steps, NUM_STEPS - 1)].astype(np.float32)

    def native_action(self, action: np.ndarray) -> np.ndarray:
        """The action itself, checked, f32 [14]: standard and native are the same."""
        action = np.array(action, np.float32)
        if action.shape != (self.action_dim,):
            raise ValueError(
                f"An action of shape {action.shape} came; aloha takes "
                f"({self.action_dim},): six joints and the gripper of the left arm, "
                "then of the right."
            )
        if not np.isfinite(action).all():
            raise ValueError(f"The action {action.tolist()} is not finite.")
        return action

    def object_poses(self) -> np.ndarray:
        """Present poses of `objects`, [o, 7]: metres and xyzw, frame of the table."""
        poses = read_objects(self._data, self.task)
        return poses[:, [0, 1, 2, 4, 5, 6, 3]]

    def camera_matrices(self, camera: str) -> tuple[np.ndarray, np.ndarray]:
        """Present intrinsics [3, 3] in pixels and extrinsics [4, 4], camera from table.

        Args:
            camera: standard name. Those on a wrist move.
        """
        name = self._names[camera]
        return camera_matrices(self._model, self._data, name, self.image_size)

    def frame(self, size: int) -> np.ndarray:
        """A picture of the present state for people, uint8 [size, size, 3]."""
        return self._renderers.picture(self._data, self._names["primary"], (size, size))

    def close(self) -> None:
        """Frees the renderers; the next picture makes a new one."""
        self._renderers.close()

    def _observation(self, render: bool) -> dict:
        cameras = self.cameras if render else ()
        views = [(c, self._data, self._names[c], self.image_size) for c in cameras]
        observation = {
            "image": {c: self._renderers.picture(*view) for c, *view in views},
            "proprio": read_joints(self._data).astype(np.float32),
        }
        if self._depth:
            observation["depth"] = {c: self._renderers.depth(*v) for c, *v in views}
        return observation


def require_installed() -> None:
    """Raises RuntimeError, with the remedy, where the simulator is missing."""
    if importlib.util.find_spec("gym_aloha") is None:
        raise RuntimeError(
            "aloha is not installed; run `pip install 'vla_jax[aloha]'`."
        )


def dataset_name(tasks: Sequence[str]) -> str:
    """What demonstrations of any tasks are called."""
    del tasks
    return "aloha"


ENVIRONMENT = Aloha


def _check(task, image_size, cameras, primary, horizon, variant) -> None:
    for kind, name, known in (
        ("aloha task", task, TASKS),
        *(("camera", camera, CAMERAS) for camera in cameras),
        ("primary camera", primary, PRIMARY_CAMERAS),
        ("variant", variant, VARIANTS),
    ):
        if name not in known:
            raise ValueError(f"Unknown {kind} '{name}'; {did_you_mean(name, known)}")
    if horizon < 1 or len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(
            f"horizon is {horizon}, image_size {image_size}; expected at least 1, and "
            "height and width of at least 1."
        )
