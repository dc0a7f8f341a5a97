"""Open-X data sets from Europe and Asia: TACO, DLR, Tokyo, KAIST, Yonsei, Shanghai."""

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.cmu import GOAL_POSE
from vla_jax.data.oxe.google import DELTA_POSE
from vla_jax.data.oxe.language import INSTRUCTION, NATURAL, instructions
from vla_jax.data.oxe.motion import columns, quaternion_to_euler
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec

_STRUCTURED = "steps/observation/structured_language_instruction"


def standardize_taco_play(raw: RawEpisode) -> dict:
    """Motion in the robot's frame; a free and a structured instruction.

    The gripper follows CALVIN: 1 opens and -1 closes.
    """
    state = raw.arrays["steps/observation/robot_obs"]
    action = raw.arrays["steps/action/rel_actions_world"]
    return {
        "proprio": columns(state[:, :6], state[:, 7]),
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, NATURAL, _STRUCTURED),
    }


def standardize_edan(raw: RawEpisode) -> dict:
    """A wheelchair with an arm; the gripper is 1 when closed."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(action[:, :6], gripper.opening(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_sara(raw: RawEpisode) -> dict:
    """Pouring and grid clamping: proprio is the pose without the forces behind it."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"][:, :6],
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_state(raw: RawEpisode) -> dict:
    """Imperial and PR2: the whole state is proprio; an eighth action ends episodes."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_xarm(raw: RawEpisode) -> dict:
    """xArm pick and place: goal poses; proprio is the pose of the hand."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/end_effector_pose"],
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_xarm_bimanual(raw: RawEpisode) -> dict:
    """Both arms, left first; only the right gripper can be the last dimension."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": columns(
            raw.arrays["steps/observation/pose_l"],
            raw.arrays["steps/observation/pose_r"],
        ),
        "action": columns(action[:, :13], gripper.kept(action[:, 13])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_lsmo(raw: RawEpisode) -> dict:
    """Proprio is pose and gripper, without the joints between them."""
    state, action = raw.arrays["steps/observation/state"], raw.arrays["steps/action"]
    return {
        "proprio": columns(state[:, :6], state[:, 12]),
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_kaist(raw: RawEpisode) -> dict:
    """Pushing with a closed gripper; actions end with gains that are left out."""
    return {
        "proprio": raw.arrays["steps/observation/state"][:, 14:],
        "action": columns(
            raw.arrays["steps/action"][:, :6],
            gripper.constant(raw.num_steps, openness=0),
        ),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_furniture_bench(raw: RawEpisode) -> dict:
    """Rotations are quaternions; proprio is position, quaternion and gripper width."""
    state, action = raw.arrays["steps/observation/state"], raw.arrays["steps/action"]
    return {
        "proprio": columns(state[:, :7], state[:, -1]),
        "action": columns(
            action[:, :3],
            quaternion_to_euler(action[:, 3:7]),
            gripper.opening(action[:, 7]),
        ),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_rh20t(raw: RawEpisode) -> dict:
    """RH20T as octo reads it: goals of the hand in the frame of the robot's base."""
    arrays = raw.arrays
    return {
        "proprio": columns(
            arrays["steps/observation/tcp_base"],
            arrays["steps/observation/gripper_width"],
        ),
        "action": columns(
            arrays["steps/action/tcp_base"],
            gripper.kept(arrays["steps/action/gripper"]),
        ),
        "language": instructions(raw, INSTRUCTION),
    }


def _one_camera(name: str, standardize, control_hz: float, **more) -> DatasetSpec:
    cameras = {"primary": "steps/observation/image", **more}
    return DatasetSpec(name, cameras, DELTA_POSE, control_hz, standardize)


_WRIST = "steps/observation/wrist_image"
SPECS = (
    DatasetSpec(
        name="rh20t",
        cameras={
            "primary": "steps/observation/image_front",
            "secondary": "steps/observation/image_side_right",
            "wrist": "steps/observation/image_wrist",
        },
        action=GOAL_POSE,
        control_hz=10.0,
        standardize=standardize_rh20t,
    ),
    DatasetSpec(
        name="taco_play",
        cameras={
            "primary": "steps/observation/rgb_static",
            "wrist": "steps/observation/rgb_gripper",
        },
        # Taken to be metres, as in CALVIN, whose recorder the laboratory uses.
        depth={
            "primary": "steps/observation/depth_static",
            "wrist": "steps/observation/depth_gripper",
        },
        action=DELTA_POSE,
        control_hz=15.0,
        standardize=standardize_taco_play,
    ),
    _one_camera(
        "dlr_edan_shared_control_converted_externally_to_rlds", standardize_edan, 5.0
    ),
    _one_camera("dlr_sara_pour_converted_externally_to_rlds", standardize_sara, 10.0),
    _one_camera(
        "dlr_sara_grid_clamp_converted_externally_to_rlds", standardize_sara, 10.0
    ),
    _one_camera(
        "imperialcollege_sawyer_wrist_cam", standardize_state, 10.0, wrist=_WRIST
    ),
    _one_camera(
        "utokyo_pr2_opening_fridge_converted_externally_to_rlds",
        standardize_state,
        10.0,
    ),
    _one_camera(
        "utokyo_pr2_tabletop_manipulation_converted_externally_to_rlds",
        standardize_state,
        10.0,
    ),
    DatasetSpec(
        name="utokyo_xarm_pick_and_place_converted_externally_to_rlds",
        cameras={
            "primary": "steps/observation/image",
            "secondary": "steps/observation/image2",
            "wrist": "steps/observation/hand_image",
        },
        action=GOAL_POSE,
        control_hz=10.0,
        standardize=standardize_xarm,
    ),
    DatasetSpec(
        name="utokyo_xarm_bimanual_converted_externally_to_rlds",
        cameras={"primary": "steps/observation/image"},
        action=("absolute",) * 13 + ("gripper",),
        control_hz=10.0,
        standardize=standardize_xarm_bimanual,
    ),
    _one_camera("tokyo_u_lsmo_converted_externally_to_rlds", standardize_lsmo, 10.0),
    _one_camera(
        "kaist_nonprehensile_converted_externally_to_rlds", standardize_kaist, 10.0
    ),
    _one_camera(
        "furniture_bench_dataset_converted_externally_to_rlds",
        standardize_furniture_bench,
        10.0,
        wrist=_WRIST,
    ),
)
