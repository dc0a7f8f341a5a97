"""Open-X data sets from Austin: VIOLA, BUDS, SAILOR, SIRIUS and MUTEX, all Franka arms.

Their gripper actions are -1 (open) or 1 (closed), some continuous from 0 to 1.
"""

import numpy as np

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.google import DELTA_POSE
from vla_jax.data.oxe.language import INSTRUCTION, NATURAL, instructions
from vla_jax.data.oxe.motion import columns
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec


def standardize_viola(raw: RawEpisode) -> dict:
    """Proprio is seven joints and the width of the gripper."""
    arrays = raw.arrays
    return {
        "proprio": columns(
            arrays["steps/observation/joint_states"],
            arrays["steps/observation/gripper_states"],
        ),
        "action": columns(
            arrays["steps/action/world_vector"],
            arrays["steps/action/rotation_delta"],
            gripper.opening(arrays["steps/action/gripper_closedness_action"]),
        ),
        "language": instructions(raw, NATURAL),
    }


def standardize_joints(raw: RawEpisode) -> dict:
    """BUDS and MUTEX: proprio is seven joints and the gripper; a matrix follows."""
    return {
        "proprio": raw.arrays["steps/observation/state"][:, :8],
        "action": _closing(raw.arrays["steps/action"]),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_state(raw: RawEpisode) -> dict:
    """SAILOR (position, quaternion, gripper) and SIRIUS (joints, gripper)."""
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": _closing(raw.arrays["steps/action"]),
        "language": instructions(raw, INSTRUCTION),
    }


def _closing(action: np.ndarray) -> np.ndarray:
    return columns(action[:, :6], gripper.opening(action[:, 6]))


def _two_cameras(name: str, standardize) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/wrist_image",
        },
        action=DELTA_POSE,
        control_hz=20.0,
        standardize=standardize,
    )


SPECS = (
    DatasetSpec(
        name="viola",
        cameras={
            "primary": "steps/observation/agentview_rgb",
            "wrist": "steps/observation/eye_in_hand_rgb",
        },
        action=DELTA_POSE,
        control_hz=20.0,
        standardize=standardize_viola,
    ),
    _two_cameras(
        "austin_buds_dataset_converted_externally_to_rlds", standardize_joints
    ),
    _two_cameras("utaustin_mutex", standardize_joints),
    _two_cameras(
        "austin_sailor_dataset_converted_externally_to_rlds", standardize_state
    ),
    _two_cameras(
        "austin_sirius_dataset_converted_externally_to_rlds", standardize_state
    ),
)
