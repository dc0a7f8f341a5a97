"""Open-X data sets from Berkeley: Bridge, cable routing, UR5, Fanuc, MVP, RPT, FMB."""

import dataclasses

import numpy as np

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.google import DELTA_POSE, delta_with_changes
from vla_jax.data.oxe.language import INSTRUCTION, NATURAL, instructions
from vla_jax.data.oxe.motion import columns, goal_known, reached_motion
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec

_ANGLES = slice(3, 6)  # roll, pitch, yaw of a Bridge state


def standardize_bridge(raw: RawEpisode) -> dict:
    """Bridge from Berkeley itself: actions are remade from the states it reached."""
    action = raw.arrays["steps/action"]
    # Episodes begin with a step that commands nothing, not even an open gripper.
    first = int(raw.num_steps > 2 and not action[0].any())
    opened = np.concatenate(
        [np.zeros((first, 1)), gripper.binarized(action[first:, 6])]
    )
    return {
        "language": instructions(raw, INSTRUCTION),
        **_bridge(raw.arrays["steps/observation/state"], opened, first),
    }


def standardize_bridge_oxe(raw: RawEpisode) -> dict:
    """Bridge as in the Open-X bucket: actions in parts, the gripper open or not."""
    arrays = raw.arrays
    moves = columns(
        arrays["steps/action/world_vector"],
        arrays["steps/action/rotation_delta"],
        arrays["steps/action/open_gripper"],
    )
    first = int(raw.num_steps > 2 and not moves[0].any())
    return {
        "language": instructions(raw, NATURAL),
        **_bridge(arrays["steps/observation/state"], moves[:, 6:], first),
    }


def standardize_cable_routing(raw: RawEpisode) -> dict:
    """The gripper holds the cable all the time."""
    arrays = raw.arrays
    return {
        "proprio": arrays["steps/observation/robot_state"],
        "action": columns(
            arrays["steps/action/world_vector"],
            arrays["steps/action/rotation_delta"],
            gripper.constant(raw.num_steps, openness=0),
        ),
        "language": instructions(raw, NATURAL),
    }


def standardize_autolab_ur5(raw: RawEpisode) -> dict:
    """Proprio is position, quaternion and whether the gripper is closed."""
    return {
        "proprio": raw.arrays["steps/observation/robot_state"][:, 6:14],
        "action": delta_with_changes(raw),
        "language": instructions(raw, NATURAL),
    }


def standardize_fanuc(raw: RawEpisode) -> dict:
    """There are no gripper commands: the measured gripper stands in for them."""
    state = raw.arrays["steps/observation/state"]
    return {
        "proprio": state[:, :7],
        "action": columns(raw.arrays["steps/action"], gripper.opening(state[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_mvp(raw: RawEpisode) -> dict:
    """Changes of seven joints; proprio is the hand's pose and whether it is closed."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": columns(
            raw.arrays["steps/observation/pose"],
            raw.arrays["steps/observation/gripper"],
        ),
        "action": columns(action[:, :7], gripper.opening(action[:, 7])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_rpt(raw: RawEpisode) -> dict:
    """Every third step of a recording at 30 Hz, with the joint changes in between."""
    joints = raw.arrays["steps/observation/joint_pos"]
    return {
        "proprio": columns(joints, raw.arrays["steps/observation/gripper"]),
        "action": columns(
            reached_motion(joints, ahead=3),
            gripper.opening(raw.arrays["steps/action"][:, 7]),
        ),
        "language": instructions(raw, INSTRUCTION),
        "steps": goal_known(raw.num_steps, ahead=3, every=3),
    }


def standardize_fmb(raw: RawEpisode) -> dict:
    """Each step names its skill, the episode the whole task: either can be drawn."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": columns(
            raw.arrays["steps/observation/eef_pose"],
            raw.arrays["steps/observation/state_gripper_pose"],
        ),
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(
            raw, INSTRUCTION, "episode_metadata/episode_language_instruction"
        ),
    }


def standardize_ppgm(raw: RawEpisode) -> dict:
    """Displacements as recorded; the gripper as Bridge's."""
    arrays = raw.arrays
    action = arrays["steps/action"]
    return {
        "proprio": columns(
            arrays["steps/observation/cartesian_position"][:, :6],
            arrays["steps/observation/gripper_position"][:, -1:],
        ),
        "action": columns(action[:, :6], gripper.binarized(action[:, -1])),
        "language": instructions(raw, INSTRUCTION),
    }


def _bridge(state: np.ndarray, opened: np.ndarray, first: int) -> dict:
    motion = reached_motion(state[:, :6], angles=_ANGLES)
    return {
        "proprio": state,
        "action": columns(motion, opened),
        "steps": goal_known(len(state), first=first),
    }


_BRIDGE = DatasetSpec(
    name="bridge_orig",
    cameras={
        "primary": "steps/observation/image_0",
        "secondary": "steps/observation/image_1",
    },
    action=DELTA_POSE,
    control_hz=5.0,
    standardize=standardize_bridge,
)
_BRIDGE_OXE = DatasetSpec(
    name="bridge",
    cameras={"primary": "steps/observation/image"},
    action=DELTA_POSE,
    control_hz=5.0,
    standardize=standardize_bridge_oxe,
)
_FMB = DatasetSpec(
    name="fmb_dataset",
    cameras={
        "primary": "steps/observation/image_side_1",
        "secondary": "steps/observation/image_side_2",
        "wrist": "steps/observation/image_wrist_1",
    },
    # Counts of RealSense cameras, whose unit is a millimetre unless changed.
    depth={
        "primary": "steps/observation/image_side_1_depth",
        "secondary": "steps/observation/image_side_2_depth",
        "wrist": "steps/observation/image_wrist_1_depth",
    },
    depth_scale={"primary": 0.001, "secondary": 0.001, "wrist": 0.001},
    action=DELTA_POSE,
    control_hz=10.0,
    standardize=standardize_fmb,
)
SPECS = (
    _BRIDGE,
    dataclasses.replace(_BRIDGE, name="bridge_dataset"),
    _BRIDGE_OXE,
    dataclasses.replace(_BRIDGE_OXE, name="bridge_oxe"),
    DatasetSpec(
        name="berkeley_cable_routing",
        cameras={
            "primary": "steps/observation/image",
            "secondary": "steps/observation/top_image",
            "wrist": "steps/observation/wrist45_image",
        },
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_cable_routing,
    ),
    DatasetSpec(
        name="berkeley_autolab_ur5",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/hand_image",
        },
        depth={"primary": "steps/observation/image_with_depth"},
        action=DELTA_POSE,
        control_hz=5.0,
        standardize=standardize_autolab_ur5,
    ),
    DatasetSpec(
        name="berkeley_fanuc_manipulation",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/wrist_image",
        },
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_fanuc,
    ),
    DatasetSpec(
        name="berkeley_mvp_converted_externally_to_rlds",
        cameras={"wrist": "steps/observation/hand_image"},
        action=("relative",) * 7 + ("gripper",),
        control_hz=5.0,
        standardize=standardize_mvp,
    ),
    DatasetSpec(
        name="berkeley_rpt_converted_externally_to_rlds",
        cameras={"wrist": "steps/observation/hand_image"},
        action=("relative",) * 7 + ("gripper",),
        control_hz=10.0,
        standardize=standardize_rpt,
    ),
    _FMB,
    dataclasses.replace(_FMB, name="fmb"),
    # No public source names their images: a spec of one's own adds `cameras`.
    *(
        DatasetSpec(
            name=name,
            cameras={},
            action=DELTA_POSE,
            control_hz=5.0,
            standardize=standardize_ppgm,
        )
        for name in ("ppgm", "ppgm_static", "ppgm_wrist")
    ),
)
