"""Open-X data sets from elsewhere in America: USC, UCSD, UIUC, ASU, RoboSet; DROID."""

import dataclasses

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.cmu import GOAL_POSE
from vla_jax.data.oxe.google import DELTA_POSE
from vla_jax.data.oxe.language import INSTRUCTION, NATURAL, instructions
from vla_jax.data.oxe.motion import columns, zeros
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec


def standardize_jaco_play(raw: RawEpisode) -> dict:
    """No rotations; the gripper says what changes."""
    arrays = raw.arrays
    closing = arrays["steps/action/gripper_closedness_action"]
    return {
        "proprio": arrays["steps/observation/end_effector_cartesian_pos"],
        "action": columns(
            arrays["steps/action/world_vector"],
            zeros(raw.num_steps, 3),
            gripper.opening_from_changes(closing),
        ),
        "language": instructions(raw, NATURAL),
    }


def standardize_ucsd_kitchen(raw: RawEpisode) -> dict:
    """Goal poses in millimetres and degrees; proprio is seven joints."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"][:, :7],
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_ucsd_pick_and_place(raw: RawEpisode) -> dict:
    """Velocities without rotations; the gripper is a torque."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(
            action[:, :3], zeros(raw.num_steps, 3), gripper.kept(action[:, 3])
        ),
        "language": instructions(raw, INSTRUCTION),
        "success": raw.metadata["episode_metadata/success"],
    }


def standardize_d3field(raw: RawEpisode) -> dict:
    """Displacements without gripper; proprio is the upper rows of the pose matrix."""
    pose = raw.arrays["steps/observation/state"]
    return {
        "proprio": columns(pose[:, :3]),
        "action": columns(
            raw.arrays["steps/action"],
            zeros(raw.num_steps, 3),
            gripper.constant(raw.num_steps, openness=0),
        ),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_roboset(raw: RawEpisode) -> dict:
    """Goals of seven joints; the gripper is -1 open, 1 closed."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(action[:, :7], gripper.opening(action[:, 7])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_asu(raw: RawEpisode) -> dict:
    """`action` is the pose of the next step and `action_delta` the way there.

    So say its authors; the catalog's text, joint velocities and more of them than there
    are numbers, was left over from an example. Proprio is the hand's pose and the
    gripper.
    """
    return {
        "proprio": columns(
            raw.arrays["steps/ground_truth_states/EE"],
            raw.arrays["steps/observation/state"][:, 6],
        ),
        "action": columns(
            raw.arrays["steps/action_delta"][:, :6],
            gripper.kept(raw.arrays["steps/action"][:, 6]),
        ),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_droid(raw: RawEpisode) -> dict:
    """DROID in the robot's frame: velocities of the hand, 0 is an open gripper."""
    return _droid(raw, "cartesian_velocity", "cartesian_position") | {
        "language": instructions(raw, *_THREE_INSTRUCTIONS)
    }


def standardize_droid_joints(raw: RawEpisode) -> dict:
    """DROID in joint space: velocities of the seven joints."""
    return _droid(raw, "joint_velocity", "joint_position") | {
        "language": instructions(raw, *_THREE_INSTRUCTIONS)
    }


def standardize_tdroid(raw: RawEpisode) -> dict:
    """T-DROID and `droid_wipe`: as DROID, with one instruction."""
    return _droid(raw, "cartesian_velocity", "cartesian_position") | {
        "language": instructions(raw, INSTRUCTION)
    }


def _droid(raw: RawEpisode, velocity: str, position: str) -> dict:
    arrays = raw.arrays
    return {
        "proprio": columns(
            arrays[f"steps/observation/{position}"],
            arrays["steps/observation/gripper_position"],
        ),
        "action": columns(
            arrays[f"steps/action_dict/{velocity}"],
            gripper.opening(arrays["steps/action_dict/gripper_position"]),
        ),
    }


def _tdroid(task: str) -> DatasetSpec:
    return DatasetSpec(
        name=f"tdroid_{task}",
        cameras={
            "primary": "steps/observation/static_image",
            "wrist": "steps/observation/wrist_image",
        },
        action=DELTA_POSE,
        control_hz=5.0,
        standardize=standardize_tdroid,
    )


_THREE_INSTRUCTIONS = (INSTRUCTION, f"{INSTRUCTION}_2", f"{INSTRUCTION}_3")
_DROID_CAMERAS = {
    "primary": "steps/observation/exterior_image_1_left",
    "secondary": "steps/observation/exterior_image_2_left",
    "wrist": "steps/observation/wrist_image_left",
}
_ROBOSET = DatasetSpec(
    name="roboset",
    cameras={
        "primary": "steps/observation/image_left",
        "secondary": "steps/observation/image_right",
        "wrist": "steps/observation/image_wrist",
    },
    action=("absolute",) * 7 + ("gripper",),
    control_hz=5.0,
    standardize=standardize_roboset,
)
SPECS = (
    DatasetSpec(
        name="jaco_play",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/image_wrist",
        },
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_jaco_play,
    ),
    DatasetSpec(
        name="ucsd_kitchen_dataset_converted_externally_to_rlds",
        cameras={"primary": "steps/observation/image"},
        action=GOAL_POSE,
        control_hz=2.0,
        standardize=standardize_ucsd_kitchen,
    ),
    DatasetSpec(
        name="ucsd_pick_and_place_dataset_converted_externally_to_rlds",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=3.0,
        standardize=standardize_ucsd_pick_and_place,
    ),
    DatasetSpec(
        name="uiuc_d3field",
        cameras={
            "primary": "steps/observation/image_1",
            "secondary": "steps/observation/image_2",
        },
        depth={
            "primary": "steps/observation/depth_1",
            "secondary": "steps/observation/depth_2",
        },
        action=DELTA_POSE,
        control_hz=1.0,
        standardize=standardize_d3field,
    ),
    _ROBOSET,
    dataclasses.replace(_ROBOSET, name="robo_set"),
    DatasetSpec(
        name="asu_table_top_converted_externally_to_rlds",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=12.5,
        standardize=standardize_asu,
    ),
    DatasetSpec(
        name="droid_wipe",
        cameras={
            "primary": "steps/observation/exterior_image_2_left",
            "wrist": "steps/observation/wrist_image_left",
        },
        action=DELTA_POSE,
        control_hz=15.0,
        standardize=standardize_tdroid,
    ),
    DatasetSpec(
        name="droid",
        cameras=_DROID_CAMERAS,
        action=DELTA_POSE,
        control_hz=15.0,
        standardize=standardize_droid,
    ),
    DatasetSpec(
        name="droid_joint_velocity",
        cameras=_DROID_CAMERAS,
        action=("relative",) * 7 + ("gripper",),
        control_hz=15.0,
        standardize=standardize_droid_joints,
    ),
    *map(
        _tdroid,
        (
            "carrot_in_bowl",
            "pour_corn_in_pot",
            "flip_pot_upright",
            "move_object_onto_plate",
            "knock_object_over",
            "cover_object_with_towel",
        ),
    ),
)
