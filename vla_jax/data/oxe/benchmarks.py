"""LIBERO, ManiSkill and MuJoCo from simulation, and the ALOHA sets."""

import numpy as np

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.google import DELTA_POSE
from vla_jax.data.oxe.language import INSTRUCTION, instructions
from vla_jax.data.oxe.motion import columns, pose_matrix
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec

# Left arm with its gripper (1 is open), then the right arm; all are goals.
_TWO_ARMS = ("absolute",) * 13 + ("gripper",)


def standardize_libero(raw: RawEpisode) -> dict:
    """LIBERO without idle steps; proprio is position, axis-angle and two fingers."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(action[:, :6], gripper.opening(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_maniskill(raw: RawEpisode) -> dict:
    """Proprio is position, quaternion wxyz and a finger; the gripper is -1 closed."""
    action = raw.arrays["steps/action"]
    world_from_base = pose_matrix(raw.arrays["steps/observation/base_pose"])
    camera = {}
    for name, prefix in (("primary", "main"), ("wrist", "wrist")):
        key = f"steps/observation/{prefix}_camera"
        extrinsics = raw.arrays[f"{key}_extrinsic_cv"] @ world_from_base
        extrinsics[:, 3] = (0, 0, 0, 1)  # exactly, whatever inverting has left there
        intrinsics = raw.arrays[f"{key}_intrinsic_cv"]
        camera[name] = {"intrinsics": intrinsics, "extrinsics": extrinsics}
    return {
        "proprio": columns(
            raw.arrays["steps/observation/tcp_pose"],
            raw.arrays["steps/observation/state"][:, 7],
        ),
        "action": columns(
            action[:, :6], gripper.opening_from_signed(action[:, 6], closed=-1)
        ),
        "language": instructions(raw, INSTRUCTION),
        "camera": camera,
    }


def standardize_aloha(raw: RawEpisode) -> dict:
    """ALOHA as recorded for fine-tuning: fourteen joints, of two arms."""
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": raw.arrays["steps/action"],
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_aloha_50hz(raw: RawEpisode) -> dict:
    """ALOHA at 50 Hz: every fifth step is kept, to be in time with other robots."""
    return standardize_aloha(raw) | {"steps": np.arange(0, raw.num_steps, 5)}


def standardize_mobile_aloha(raw: RawEpisode) -> dict:
    """Mobile ALOHA: the two velocities of its base stand before the right gripper.

    Only the last dimension can be a gripper. As `standardize_aloha_50hz` otherwise.
    """
    action = raw.arrays["steps/action"]
    return standardize_aloha_50hz(raw) | {
        "action": columns(action[:, :13], action[:, 14:16], action[:, 13])
    }


def standardize_mujoco_manip(raw: RawEpisode) -> dict:
    """A simulated gripper whose command goes from 0, open, to 255, closed."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/proprio"],
        "action": columns(action[:, :6], gripper.opening(action[:, 6] / 255)),
        "language": instructions(raw, INSTRUCTION),
    }


def _libero(suite: str) -> DatasetSpec:
    return DatasetSpec(
        name=f"libero_{suite}_no_noops",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/wrist_image",
        },
        action=DELTA_POSE,
        control_hz=20.0,
        standardize=standardize_libero,
    )


def _aloha(name: str) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        cameras={
            "primary": "steps/observation/image",
            "secondary": "steps/observation/low_cam_image",
            "wrist": "steps/observation/right_wrist_image",
            "wrist_left": "steps/observation/left_wrist_image",
        },
        action=_TWO_ARMS,
        control_hz=25.0,
        standardize=standardize_aloha,
    )


def _aloha_50hz(name: str) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        cameras={
            "primary": "steps/observation/cam_high",
            "secondary": "steps/observation/cam_low",
            "wrist": "steps/observation/cam_right_wrist",
        },
        action=_TWO_ARMS,
        control_hz=10.0,
        standardize=standardize_aloha_50hz,
    )


def _mobile_aloha(name: str) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        cameras={
            "primary": "steps/observation/cam_high",
            "wrist": "steps/observation/cam_right_wrist",
            "wrist_left": "steps/observation/cam_left_wrist",
        },
        action=("absolute",) * 13 + ("relative",) * 2 + ("gripper",),
        control_hz=10.0,
        standardize=standardize_mobile_aloha,
    )


SPECS = (
    *map(_libero, ("spatial", "object", "goal", "10", "90")),
    DatasetSpec(
        name="maniskill_dataset_converted_externally_to_rlds",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/wrist_image",
        },
        depth={
            "primary": "steps/observation/depth",
            "wrist": "steps/observation/wrist_depth",
        },
        depth_scale={"primary": 2.0**-10, "wrist": 2.0**-10},
        action=DELTA_POSE,
        control_hz=20.0,
        standardize=standardize_maniskill,
    ),
    *map(
        _aloha,
        (
            "aloha1_fold_shorts_20_demos",
            "aloha1_fold_shirt_30_demos",
            "aloha1_scoop_X_into_bowl_45_demos",
            "aloha1_put_X_into_pot_300_demos",
        ),
    ),
    *map(_aloha_50hz, ("aloha_static_dataset", "aloha_dagger_dataset")),
    *map(_mobile_aloha, ("aloha_mobile", "aloha_mobile_dataset")),
    DatasetSpec(
        name="mujoco_manip",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=5.0,
        standardize=standardize_mujoco_manip,
    ),
)
