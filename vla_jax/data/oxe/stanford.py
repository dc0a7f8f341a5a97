"""Open-X data sets from Stanford: RoboTurk, HYDRA, Kuka, MaskViT, RoboCook; RoboNet."""

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.google import DELTA_POSE
from vla_jax.data.oxe.language import INSTRUCTION, NATURAL, instructions
from vla_jax.data.oxe.motion import columns, goal_known, inverse_pose, zeros
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec


def standardize_roboturk(raw: RawEpisode) -> dict:
    """No proprio is recorded."""
    arrays = raw.arrays
    return {
        "proprio": zeros(raw.num_steps),
        "action": columns(
            arrays["steps/action/world_vector"],
            arrays["steps/action/rotation_delta"],
            gripper.opening(arrays["steps/action/gripper_closedness_action"]),
        ),
        "language": instructions(raw, NATURAL),
    }


def standardize_hydra(raw: RawEpisode) -> dict:
    """Proprio is position, Euler angles and the first of three gripper numbers."""
    state, action = raw.arrays["steps/observation/state"], raw.arrays["steps/action"]
    return {
        "proprio": columns(state[:, :3], state[:, 7:10], state[:, 24]),
        "action": columns(action[:, :6], gripper.opening(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_kuka_multimodal(raw: RawEpisode) -> dict:
    """Peg insertion without rotations."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": columns(
            raw.arrays["steps/observation/ee_position"],
            raw.arrays["steps/observation/ee_orientation"],
        ),
        "action": columns(
            action[:, :3], zeros(raw.num_steps, 3), gripper.kept(action[:, 3])
        ),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_mask_vit(raw: RawEpisode) -> dict:
    """The only angle is the fourth number; the gripper is -1 open, 1 closed."""
    action = raw.arrays["steps/action"]
    pose = raw.arrays["steps/observation/end_effector_pose"]
    still = zeros(raw.num_steps, 2)
    closing = gripper.opening_from_signed(action[:, 4], closed=1)
    return {
        "proprio": columns(pose[:, :4], still, pose[:, 4]),
        "action": columns(action[:, :4], still, closing),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_robo_net(raw: RawEpisode) -> dict:
    """As MaskViT, with the gripper last whatever else a state holds."""
    state, action = raw.arrays["steps/observation/state"], raw.arrays["steps/action"]
    still = zeros(raw.num_steps, 2)
    return {
        "proprio": columns(state[:, :4], still, state[:, -1]),
        "action": columns(action[:, :4], still, gripper.kept(action[:, -1])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_robocook(raw: RawEpisode) -> dict:
    """Actions are what the hand did until the next frame, and so is the gripper.

    Its command is the width, in metres, that the fingers have in the next frame, as a
    share of what a Franka hand can open. Nothing follows the last frame: it is left
    out. Camera poses in the frame of the robot turn into extrinsics.
    """
    action = raw.arrays["steps/action"]
    state = raw.arrays["steps/observation/state"]
    width = state[:, 6] + action[:, 6]
    poses = {
        camera: raw.metadata[f"episode_metadata/extrinsics_{number}"]
        for camera, number in (("primary", 1), ("secondary", 2))
    }
    return {
        "proprio": state,
        "action": columns(action[:, :6], gripper.kept(width / _FRANKA_STROKE)),
        "language": instructions(raw, INSTRUCTION),
        "camera": {
            camera: {"extrinsics": inverse_pose(pose)} for camera, pose in poses.items()
        },
        "steps": goal_known(raw.num_steps),
    }


_FRANKA_STROKE = 0.08  # metres between the open fingers of a Franka hand
SPECS = (
    DatasetSpec(
        name="roboturk",
        cameras={"primary": "steps/observation/front_rgb"},
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_roboturk,
    ),
    DatasetSpec(
        name="stanford_hydra_dataset_converted_externally_to_rlds",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/wrist_image",
        },
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_hydra,
    ),
    DatasetSpec(
        name="stanford_kuka_multimodal_dataset_converted_externally_to_rlds",
        cameras={"primary": "steps/observation/image"},
        # Metres: its authors take what is 2 or more away to be missing.
        depth={"primary": "steps/observation/depth_image"},
        action=DELTA_POSE,
        control_hz=20.0,
        standardize=standardize_kuka_multimodal,
    ),
    DatasetSpec(
        name="stanford_mask_vit_converted_externally_to_rlds",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=1.0,
        standardize=standardize_mask_vit,
    ),
    DatasetSpec(
        name="robo_net",
        cameras={
            "primary": "steps/observation/image",
            "secondary": "steps/observation/image1",
        },
        action=DELTA_POSE,
        control_hz=1.0,
        standardize=standardize_robo_net,
    ),
    DatasetSpec(
        name="stanford_robocook_converted_externally_to_rlds",
        cameras={
            "primary": "steps/observation/image_1",
            "secondary": "steps/observation/image_2",
        },
        depth={
            "primary": "steps/observation/depth_1",
            "secondary": "steps/observation/depth_2",
        },
        depth_scale={"primary": 0.001, "secondary": 0.001},
        action=DELTA_POSE,
        control_hz=5.0,
        standardize=standardize_robocook,
    ),
)
