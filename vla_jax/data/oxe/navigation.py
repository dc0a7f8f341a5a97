"""Open-X data sets of robots that drive: RECON, CoryHall, SACSoN, and all of GNM.

They move in a plane: of an action, x points ahead and y to the left of where the robot
is, yaw is its turn to the left; the other dimensions are zero and there is no gripper.
Proprio is position and yaw (radians) in the frame in which the odometry began.
"""

import numpy as np

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.google import DELTA_POSE
from vla_jax.data.oxe.language import INSTRUCTION, instructions
from vla_jax.data.oxe.motion import (
    columns,
    goal_known,
    reached_motion,
    rotated,
    zeros,
)
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec

_GNM_SKIP = 3  # recorded steps per action of `gnm_dataset`


def standardize_gnm(raw: RawEpisode) -> dict:
    """Displacement and turn until the next frame; nothing follows the last one."""
    moved = raw.arrays["steps/action_angle"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": _planar(moved[:, :2], _short_way(moved[:, 2:])),
        "language": instructions(raw, INSTRUCTION),
        "steps": goal_known(raw.num_steps),
    }


def standardize_gnm_collection(raw: RawEpisode) -> dict:
    """Every third frame, with what the robot did in between.

    The data sets of the collection measure positions in different units: they are
    multiplied by what turns positions into the recorded actions.
    """
    state = raw.arrays["steps/observation/state"]
    motion = reached_motion(state, ahead=_GNM_SKIP, angles=slice(2, 3))
    scale = _unit(raw.arrays["steps/action"], state[:, :2])
    moved = rotated(motion[:, :2], state[:, 2]) * scale
    return {
        "proprio": state,
        "action": _planar(moved, motion[:, 2:]),
        "language": instructions(raw, INSTRUCTION),
        "steps": goal_known(raw.num_steps, ahead=_GNM_SKIP, every=_GNM_SKIP),
    }


def _planar(moved: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Actions of seven columns from `[T, 2]` and `[T, 1]`."""
    num_steps = len(moved)
    still = gripper.constant(num_steps, openness=0)
    return columns(moved, zeros(num_steps, 3), turned, still)


def _unit(action: np.ndarray, position: np.ndarray) -> float:
    """Length of the recorded actions over that of the path; 1 for a robot that rests.

    Of all steps together: that of the first one alone divides by zero where a robot
    does not move at once.
    """
    path = np.linalg.norm(np.diff(position, axis=0), axis=1).sum()
    acted = np.linalg.norm(action[:-1], axis=1).sum()
    return float(acted / path) if path > 0 and acted > 0 else 1.0


def _short_way(angles: np.ndarray) -> np.ndarray:
    return angles - 2 * np.pi * np.round(angles / (2 * np.pi))


def _gnm(name: str, control_hz: float) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=control_hz,
        standardize=standardize_gnm,
    )


SPECS = (
    _gnm("berkeley_gnm_recon", 3.0),
    _gnm("berkeley_gnm_cory_hall", 5.0),
    _gnm("berkeley_gnm_sac_son", 10.0),
    DatasetSpec(
        name="gnm_dataset",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=4.0 / _GNM_SKIP,
        standardize=standardize_gnm_collection,
    ),
)
