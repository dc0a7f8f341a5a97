"""The scenes of gym-aloha in plain MuJoCo: models, start poses, control, stages.

gym-aloha (Apache-2.0; the tasks of Zhao et al., 2023) brings the scenes. Its own
environment renders three large pictures per step and knows no disturbances, so the few
lines around the physics are written anew; a test holds them to gym-aloha's numbers.

Lengths are metres in the frame of the table: x to the right, y away from the `angle`
camera, z up. Quaternions of MuJoCo are wxyz.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Set
from pathlib import Path

import numpy as np

from vla_jax.names import did_you_mean

CONTROL_HZ = 50.0
_SUBSTEPS = 10  # of 2 ms each
_NUM_JOINTS = 16  # two arms of six joints and two fingers each
# Both arms at rest, the fingers almost closed.
_HOME = np.array([0, -0.96, 1.16, 0, -0.3, 0, 0.02239, -0.02239] * 2)
_CLOSED, _OPEN = 0.01844, 0.05800  # finger positions behind gripper 0 and 1
_LEFT_FINGER = "vx300s_left/10_left_gripper_finger"
_RIGHT_FINGER = "vx300s_right/10_right_gripper_finger"
_SOCKET = tuple(f"socket-{number}" for number in (1, 2, 3, 4))

Contacts = Set[frozenset[str]]


@dataclasses.dataclass(frozen=True)
class Scene:
    """One task.

    Attributes:
        file: ending of the names of gym-aloha's two models, by joints and by tools.
        objects: bodies that are manipulated, in the order of the state.
        ranges: of each object the (low, high) corners of its start position.
        stages: names of what is rewarded with 1, 2, 3 and 4.
        stage: the reward, from the pairs of geoms in contact.
    """

    file: str
    objects: tuple[str, ...]
    ranges: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    stages: tuple[str, ...]
    stage: Callable[[Contacts], int]


def transfer_stage(contacts: Contacts) -> int:
    """1 right gripper touches the cube, 2 and lifts it, 3 left touches, 4 and holds."""
    on_table = _touch(contacts, "red_box", "table")
    if _touch(contacts, "red_box", _LEFT_FINGER):
        return 3 if on_table else 4
    if _touch(contacts, "red_box", _RIGHT_FINGER):
        return 1 if on_table else 2
    return 0


def insertion_stage(contacts: Contacts) -> int:
    """1 both parts are touched, 2 and lifted, 3 they meet in the air, 4 peg on pin."""
    on_table = _touch(contacts, "red_peg", "table") or any(
        _touch(contacts, wall, "table") for wall in _SOCKET
    )
    held = _touch(contacts, "red_peg", _RIGHT_FINGER) and any(
        _touch(contacts, wall, _LEFT_FINGER) for wall in _SOCKET
    )
    if _touch(contacts, "red_peg", "pin"):
        return 4
    if not on_table and any(_touch(contacts, "red_peg", wall) for wall in _SOCKET):
        return 3
    if held:
        return 1 if on_table else 2
    return 0


SCENES = {
    "insertion": Scene(
        file="insertion",
        objects=("peg", "socket"),
        ranges=(
            ((0.1, 0.4, 0.05), (0.2, 0.6, 0.05)),
            ((-0.2, 0.4, 0.05), (-0.1, 0.6, 0.05)),
        ),
        stages=("grasped", "lifted", "contact", "inserted"),
        stage=insertion_stage,
    ),
    "transfer_cube": Scene(
        file="transfer_cube",
        objects=("box",),
        ranges=(((0.0, 0.4, 0.05), (0.2, 0.6, 0.05)),),
        stages=("touched", "lifted", "handed over", "transferred"),
        stage=transfer_stage,
    ),
}


def draw_start(task: str, seed: int) -> np.ndarray:
    """Start poses [o, 7] of the objects, x y z and wxyz: gym-aloha's for this seed."""
    rng = np.random.RandomState(seed)
    identity = [1.0, 0.0, 0.0, 0.0]
    return np.array(
        [[*rng.uniform(low, high), *identity] for low, high in SCENES[task].ranges]
    )


def load_model(
    task: str,
    *,
    end_effector: bool = False,
    edit: Callable[[object], None] = lambda spec: None,
):
    """Compiles the model of a task.

    Args:
        task: one of `SCENES`.
        end_effector: the model whose grippers are pulled by two mocap bodies, instead
            of the one with motors at the joints.
        edit: changes the `mujoco.MjSpec` before it is compiled.

    Raises:
        ValueError: an unknown task, or gym-aloha is not installed.
    """
    import mujoco

    if task not in SCENES:
        raise ValueError(f"Unknown aloha task '{task}'; {did_you_mean(task, SCENES)}")
    kind = "end_effector_" if end_effector else ""
    path = _assets() / f"bimanual_viperx_{kind}{SCENES[task].file}.xml"
    spec = mujoco.MjSpec.from_file(str(path))
    edit(spec)
    return spec.compile()


def start(model, data, poses: np.ndarray) -> None:
    """Puts both arms home and the objects to `poses` [o, 7], everything at rest."""
    import mujoco

    mujoco.mj_resetData(model, data)
    settle(model, data)  # the solver starts from what it found here, as in dm_control
    data.qpos[:_NUM_JOINTS] = _HOME
    data.qpos[_NUM_JOINTS : _NUM_JOINTS + poses.size] = poses.reshape(-1)
    if model.nu == _NUM_JOINTS:
        data.ctrl[:] = _HOME
    settle(model, data)


def settle(model, data) -> None:
    """Computes everything that follows from the state, with the motors off."""
    import mujoco

    flags = model.opt.disableflags
    model.opt.disableflags = flags | mujoco.mjtDisableBit.mjDSBL_ACTUATION
    mujoco.mj_forward(model, data)
    model.opt.disableflags = flags


def advance(model, data) -> None:
    """One control step of 20 ms; positions and contacts are those of its end."""
    import mujoco

    mujoco.mj_step2(model, data)
    mujoco.mj_step(model, data, _SUBSTEPS - 1)
    mujoco.mj_step1(model, data)


def native_control(action: np.ndarray) -> np.ndarray:
    """Joint targets [14] to the sixteen actuators, whose limits MuJoCo applies."""
    left, right = np.split(np.asarray(action, np.float64), 2)
    return np.concatenate([left[:6], fingers(left[6]), right[:6], fingers(right[6])])


def fingers(gripper: float) -> list[float]:
    """Targets of both fingers of a gripper, 0 closed to 1 open."""
    position = _CLOSED + gripper * (_OPEN - _CLOSED)
    return [position, -position]


def read_joints(data) -> np.ndarray:
    """Left arm, its gripper, right arm, its gripper: [14], radians and 0..1."""
    arms = data.qpos[:_NUM_JOINTS].reshape(2, 8)
    gripper = (arms[:, 6:7] - _CLOSED) / (_OPEN - _CLOSED)
    return np.concatenate([arms[:, :6], gripper], axis=1).reshape(-1)


def read_objects(data, task: str) -> np.ndarray:
    """Present poses [o, 7] of the objects, x y z and wxyz."""
    count = len(SCENES[task].objects)
    return data.qpos[_NUM_JOINTS : _NUM_JOINTS + 7 * count].reshape(count, 7).copy()


def read_contacts(model, data) -> set[frozenset[str]]:
    """The pairs of geoms that touch, by name."""
    return {
        frozenset((model.geom(pair[0]).name, model.geom(pair[1]).name))
        for pair in data.contact.geom.tolist()
    }


def _touch(contacts: Contacts, first: str, second: str) -> bool:
    return frozenset((first, second)) in contacts


def _assets() -> Path:
    # Found without importing it: gym-aloha's import registers environments.
    package = importlib.util.find_spec("gym_aloha")
    if package is None or package.origin is None:
        raise ValueError(
            "gym-aloha is not installed; install it with "
            "`pip install 'vla_jax[aloha]'`."
        )
    return Path(package.origin).parent / "assets"
