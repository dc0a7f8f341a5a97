"""LIBERO's tasks behind `environment.Environment`, with the published protocol.

Standard actions are the seven numbers of LIBERO's operational-space control: the hand's
displacement (x, y, z, 1 = 5 cm), its turn as an axis-angle vector (1 = 0.5 rad), both
in the robot's frame, and the gripper (1 = open, 0 = closed; LIBERO's own is -1 and +1).
`proprio` is the hand's position in metres, its orientation as an axis-angle vector and
the positions of the two fingers, as the published RLDS sets have it.

Seeds 0 to 49 are the fixed initial states that every published number is measured on;
any other seed draws a placement. The robot then holds still for ten steps, while the
objects settle.
"""

import contextlib
import itertools
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from vla_jax.data.resize import resize
from vla_jax.names import did_you_mean
from vla_jax.simulation.libero import package
from vla_jax.simulation.rendering import Renderers, choose_backend

DEFAULT_IMAGE_SIZE = 256
DEFAULT_CAMERAS = ("primary", "wrist")
HAS_DEPTH = False
VARIANTS = ("none",)
STAGES: Mapping[str, tuple[str, ...]] = {}
FIXED_STARTS = 50
SETTLE_STEPS = 10
CONTROL_HZ = 20.0
# Steps after which an attempt has failed, as OpenVLA's evaluation counts them
# (the longest demonstration of the suite and some more).
HORIZONS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
_CAMERAS = {"primary": "agentview", "wrist": "robot0_eye_in_hand"}
# The size that published pictures are rendered in, whatever a policy makes of them.
_RENDERED = (256, 256)
_HOLD = np.array([0, 0, 0, 0, 0, 0, -1.0])


class Libero:
    """One LIBERO task; see `environment.Environment` for the attributes.

    The seed of `reset` alone pins the initial state: what was played before has no
    influence.
    """

    proprio_dim = 8
    action_dim = 7
    grippers = (6,)
    control_hz = CONTROL_HZ
    demonstration = None
    stages = ()
    objects = ()

    def __init__(
        self,
        task: str,
        *,
        image_size: int | tuple[int, int] = DEFAULT_IMAGE_SIZE,
        cameras: tuple[str, ...] = DEFAULT_CAMERAS,
        primary: str | None = None,
        horizon: int | None = None,
        cheap: bool = True,
    ):
        """Builds the simulation; the renderer follows when the first picture is due.

        Args:
            task: LIBERO's name of the task; of any suite.
            image_size: of the pictures, in pixels: (height, width), or one for both.
                Smaller ones are reduced from 256 x 256, as training reduces them.
            cameras: which of "primary" and "wrist" to render; may be empty.
            primary: LIBERO's camera behind "primary"; None for "agentview".
            horizon: steps after which an attempt counts as failed; None for the
                suite's entry of `HORIZONS`.
            cheap: without shadows and multisampling; off for published numbers.

        Raises:
            RuntimeError: LIBERO is not installed, or its assets are missing.
            ValueError: an unknown name (alternatives are listed) or a bad number.
        """
        if isinstance(image_size, int):
            image_size = (image_size, image_size)
        for camera in cameras:
            if camera not in _CAMERAS:
                raise ValueError(
                    f"Unknown camera '{camera}'; {did_you_mean(camera, _CAMERAS)}"
                )
        self.suite = package.suite_of(task)
        self.horizon = HORIZONS[self.suite] if horizon is None else horizon
        if self.horizon < 1 or min(image_size) < 1:
            raise ValueError(
                f"horizon is {horizon}, image_size {image_size}; expected at least 1."
            )
        package.prepare()
        choose_backend(needed=bool(cameras))
        self.task = task
        self.cameras = tuple(cameras)
        self.image_size = tuple(image_size)
        self.instruction = package.instruction_of(task)
        self.instructions = (self.instruction,)
        self._fixed = package.read_initial_states(package.initial_states(task))
        self.simulator = _make_simulator(package.bddl_file(task))
        self._names = {**_CAMERAS, "primary": primary or _CAMERAS["primary"]}
        known = self.simulator.sim.model.camera_names
        if self._names["primary"] not in known:
            raise ValueError(
                f"Unknown primary camera '{primary}'; {did_you_mean(primary, known)}"
            )
        self._renderers = Renderers(
            self.simulator.sim.model._model, cheap=cheap, hidden_groups=(0,)
        )
        self._observed = None
        self._expert = None

    def reset(self, seed: int, *, render: bool = True) -> dict:
        """Starts the episode of `seed`; returns its first observation."""
        simulator = self.simulator
        fixed = 0 <= seed < FIXED_STARTS
        with _global_seed(0 if fixed else seed):
            _reset_until_placed(simulator)
        if fixed:
            simulator.sim.set_state_from_flattened(self._fixed[seed])
            simulator.sim.forward()
            simulator._check_success()
            simulator._post_process()
            simulator._update_observables(force=True)
        for _ in range(SETTLE_STEPS):
            self._observed, *_ = simulator.step(_HOLD)
        self._expert = None
        return self._observation(render)

    def step(
        self, action: np.ndarray, *, render: bool = True
    ) -> tuple[dict, float, bool]:
        """Plays one standard action [7]; values beyond the limits are clipped.

        Raises:
            ValueError: an action of another size, not finite, or before `reset`.
        """
        native = self.native_action(action)
        if self._observed is None:
            raise ValueError("step was called before reset.")
        self._observed, reward, done, _ = self.simulator.step(native)
        return self._observation(render), float(reward), bool(done)

    def expert_action(self) -> np.ndarray:
        """The scripted expert's standard action [7] in the present state.

        The script goes on by one step at every call, so call it once per step.

        Raises:
            NoSkill: no script reaches this task; the list of those is in the docs.
        """
        from vla_jax.simulation.libero.expert import Expert
        from vla_jax.simulation.libero.scene import Scene

        if self._observed is None:
            raise ValueError("expert_action was called before reset.")
        if self._expert is None:
            self._expert = Expert(Scene(self.simulator))
        return self._expert.action()

    def native_action(self, action: np.ndarray) -> np.ndarray:
        """Standard action [7] to LIBERO's, clipped to its limits, f32 [7]."""
        action = np.array(action, np.float32)
        if action.shape != (self.action_dim,):
            raise ValueError(
                f"An action of shape {action.shape} came; libero takes (7,): x, y, z, "
                "three angles and the gripper, 1 = open."
            )
        if not np.isfinite(action).all():
            raise ValueError(f"The action {action.tolist()} is not finite.")
        action[6] = 1 - 2 * action[6]
        return np.clip(action, -1, 1)

    def frame(self, size: int) -> np.ndarray:
        """A picture of the present state for people, uint8 [size, size, 3]."""
        return self._renderers.picture(self._data, self._names["primary"], (size, size))

    def close(self) -> None:
        """Frees the renderers; the next picture makes a new one."""
        self._renderers.close()

    @property
    def _data(self):
        return self.simulator.sim.data._data

    def _observation(self, render: bool) -> dict:
        from robosuite.utils.transform_utils import quat2axisangle

        seen = self._observed
        image = {}
        if render:
            image = {c: self._picture(c) for c in self.cameras}
        proprio = np.concatenate(
            [
                seen["robot0_eef_pos"],
                quat2axisangle(seen["robot0_eef_quat"].copy()),
                seen["robot0_gripper_qpos"],
            ]
        )
        return {
            "image": image,
            "proprio": proprio.astype(np.float32),
            "joint_state": seen["robot0_joint_pos"].astype(np.float32),
        }

    def _picture(self, camera: str) -> np.ndarray:
        size = tuple(max(pair) for pair in zip(_RENDERED, self.image_size, strict=True))
        upright = self._renderers.picture(self._data, self._names[camera], size)
        return resize(published_view(upright), *self.image_size)


def published_view(upright: np.ndarray) -> np.ndarray:
    """An upright picture as the published RLDS sets store it: mirrored left to right.

    LIBERO's pictures come out upside down, and those sets turned them by 180 degrees.
    """
    return np.ascontiguousarray(upright[:, ::-1])


def require_installed() -> None:
    """Raises RuntimeError, with the remedy, where packages or assets are missing."""
    package.prepare()


def dataset_name(tasks: Sequence[str]) -> str:
    """What demonstrations of tasks are called: as the published set of their suite.

    Raises:
        ValueError: tasks of several suites, which are published apart.
    """
    suites = sorted({package.suite_of(task) for task in tasks})
    if len(suites) > 1:
        raise ValueError(
            f"Tasks of {', '.join(suites)} came; a data set holds one suite. Collect "
            "them one after the other, for example with --tasks=libero_object."
        )
    return f"{suites[0]}_no_noops"


def __getattr__(name: str):
    """Tables that stand in the package: read when asked for, and refused without it."""
    if name == "GROUPS":
        return package.suites()
    if name == "TASKS":
        return tuple(sorted(itertools.chain(*package.suites().values())))
    if name == "INSTRUCTIONS":
        tasks = __getattr__("TASKS")
        return {task: (package.instruction_of(task),) for task in tasks}
    raise AttributeError(name)


@contextlib.contextmanager
def _global_seed(seed: int):
    """Seeds numpy's global generator, from which LIBERO draws; gives it back after."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _make_simulator(bddl_file):
    """LIBERO's own environment, without cameras: pictures are rendered here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # about a settings file that nobody needs
    try:
        import robosuite
        from libero.libero.envs import TASK_MAPPING
        from libero.libero.envs.bddl_utils import get_problem_info
    finally:
        logging.disable(before)

    problem = get_problem_info(str(bddl_file))["problem_name"]
    return TASK_MAPPING[problem](
        str(bddl_file),
        robots=["Panda"],
        controller_configs=robosuite.load_controller_config(
            default_controller="OSC_POSE"
        ),
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        control_freq=int(CONTROL_HZ),
        # The published protocol starts the arm without noise.
        initialization_noise=None,
        # Whoever plays counts the steps.
        horizon=10**9,
        ignore_done=True,
        # The model is the same for every episode; loading it again takes seconds.
        hard_reset=False,
    )


def _reset_until_placed(simulator) -> None:
    from robosuite.utils.errors import RandomizationError

    for robot in simulator.robots:
        # The fingers' target is integrated over time and survives a reset.
        robot.gripper.current_action = np.zeros(robot.gripper.dof)
    while True:
        try:
            simulator.reset()
        except RandomizationError:
            continue
        return


ENVIRONMENT = Libero
