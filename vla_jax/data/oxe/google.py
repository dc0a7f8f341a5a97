"""Open-X data sets of Google's robots: RT-1, QT-Opt, BC-Z and Language-Table."""

import numpy as np

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.language import NATURAL, instructions, spelled_instructions
from vla_jax.data.oxe.motion import columns, zeros
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec

DELTA_POSE = ("relative",) * 6 + ("gripper",)


def standardize_fractal(raw: RawEpisode) -> dict:
    """RT-1: the gripper says what changes; proprio is xyz, quaternion, closedness."""
    arrays = raw.arrays
    return {
        "proprio": columns(
            arrays["steps/observation/base_pose_tool_reached"],
            arrays["steps/observation/gripper_closed"],
        ),
        "action": delta_with_changes(raw),
        "language": instructions(raw, NATURAL),
    }


def standardize_kuka(raw: RawEpisode) -> dict:
    """QT-Opt: as RT-1, with its state stored as compressed tensors.

    Most attempts fail; `success` tells which.
    """
    arrays, fields = raw.arrays, {}
    if "success" in raw.metadata:
        fields["success"] = raw.metadata["success"]
    return fields | {
        "proprio": columns(
            arrays["steps/observation/clip_function_input/base_pose_tool_reached"],
            arrays["steps/observation/gripper_closed"],
        ),
        "action": delta_with_changes(raw),
        "language": instructions(raw, NATURAL),
    }


def standardize_bc_z(raw: RawEpisode) -> dict:
    """BC-Z: of the ten future actions of every step the first is the one it takes."""
    arrays = raw.arrays
    return {
        "proprio": columns(
            arrays["steps/observation/present/xyz"],
            arrays["steps/observation/present/axis_angle"],
            arrays["steps/observation/present/sensed_close"],
        ),
        "action": columns(
            arrays["steps/action/future/xyz_residual"][:, :3],
            arrays["steps/action/future/axis_angle_residual"][:, :3],
            gripper.opening(arrays["steps/action/future/target_close"][:, 0]),
        ),
        "language": instructions(raw, NATURAL),
    }


def standardize_language_table(raw: RawEpisode) -> dict:
    """Language-Table: a stick that moves in a plane, instructions in code points."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/effector_translation"],
        "action": columns(
            action,
            zeros(raw.num_steps, 4),
            gripper.constant(raw.num_steps, openness=1),
        ),
        "language": spelled_instructions(raw.arrays["steps/observation/instruction"]),
    }


def delta_with_changes(raw: RawEpisode) -> np.ndarray:
    """A displacement, a rotation and a gripper command that says what changes."""
    arrays = raw.arrays
    return columns(
        arrays["steps/action/world_vector"],
        arrays["steps/action/rotation_delta"],
        gripper.opening_from_changes(arrays["steps/action/gripper_closedness_action"]),
    )


SPECS = (
    DatasetSpec(
        name="fractal20220817_data",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=3.0,
        standardize=standardize_fractal,
    ),
    DatasetSpec(
        name="kuka",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_kuka,
    ),
    DatasetSpec(
        name="bc_z",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_bc_z,
    ),
    DatasetSpec(
        name="language_table",
        cameras={"primary": "steps/observation/rgb"},
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_language_table,
    ),
)
