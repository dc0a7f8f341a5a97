"""Open-X data sets from Carnegie Mellon: TOTO, Stretch, play, food and insertion."""

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.google import DELTA_POSE
from vla_jax.data.oxe.language import INSTRUCTION, NATURAL, instructions
from vla_jax.data.oxe.motion import columns, quaternion_to_euler, zeros
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec

GOAL_POSE = ("absolute",) * 6 + ("gripper",)


def standardize_toto(raw: RawEpisode) -> dict:
    """Proprio is seven joints."""
    arrays = raw.arrays
    return {
        "proprio": arrays["steps/observation/state"],
        "action": columns(
            arrays["steps/action/world_vector"],
            arrays["steps/action/rotation_delta"],
            arrays["steps/action/open_gripper"],
        ),
        "language": instructions(raw, NATURAL),
    }


def standardize_stretch(raw: RawEpisode) -> dict:
    """The eighth action ends the episode; the robot's position has no rotation."""
    state, action = raw.arrays["steps/observation/state"], raw.arrays["steps/action"]
    return {
        "proprio": columns(state[:, :3], zeros(raw.num_steps, 3), state[:, 3]),
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_franka_exploration(raw: RawEpisode) -> dict:
    """The eighth action ends the episode; no proprio is recorded."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": zeros(raw.num_steps),
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_play_fusion(raw: RawEpisode) -> dict:
    """Position, quaternion, gripper and the end of the episode, in this order."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(
            action[:, :3],
            quaternion_to_euler(action[:, 3:7]),
            gripper.kept(action[:, 7]),
        ),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_playing_with_food(raw: RawEpisode) -> dict:
    """Goal poses with wxyz quaternions; proprio is force and torque."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(
            action[:, :3],
            quaternion_to_euler(action[:, [4, 5, 6, 3]]),
            gripper.kept(action[:, 7]),
        ),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_pickup_insert(raw: RawEpisode) -> dict:
    """Goal poses; proprio is seven joints and the gripper."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"][:, :8],
        "action": columns(
            action[:, :3],
            quaternion_to_euler(action[:, 3:7]),
            gripper.kept(action[:, 7]),
        ),
        "language": instructions(raw, INSTRUCTION),
    }


SPECS = (
    DatasetSpec(
        name="toto",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=30.0,
        standardize=standardize_toto,
    ),
    DatasetSpec(
        name="cmu_stretch",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_stretch,
    ),
    DatasetSpec(
        name="cmu_franka_exploration_dataset_converted_externally_to_rlds",
        cameras={"primary": "steps/observation/highres_image"},
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_franka_exploration,
    ),
    DatasetSpec(
        name="cmu_play_fusion",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=5.0,
        standardize=standardize_play_fusion,
    ),
    DatasetSpec(
        name="cmu_playing_with_food",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/finger_vision_1",
        },
        action=GOAL_POSE,
        control_hz=10.0,
        standardize=standardize_playing_with_food,
    ),
    DatasetSpec(
        name="iamlab_cmu_pickup_insert_converted_externally_to_rlds",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/wrist_image",
        },
        action=GOAL_POSE,
        control_hz=20.0,
        standardize=standardize_pickup_insert,
    ),
)
