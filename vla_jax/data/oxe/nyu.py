"""Open-X data sets from New York: door opening, Franka play, ROT, Dobb-E; PushT."""

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.google import DELTA_POSE, delta_with_changes
from vla_jax.data.oxe.language import INSTRUCTION, NATURAL, instructions
from vla_jax.data.oxe.motion import columns, zeros
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec


def standardize_door_opening(raw: RawEpisode) -> dict:
    """A stick with a camera: no proprio."""
    return {
        "proprio": zeros(raw.num_steps),
        "action": delta_with_changes(raw),
        "language": instructions(raw, NATURAL),
    }


def standardize_franka_play(raw: RawEpisode) -> dict:
    """Actions begin with joint velocities; the motion of the hand follows them."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"][:, 7:13],
        "action": columns(action[:, 7:13], gripper.kept(action[:, 13])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_rot(raw: RawEpisode) -> dict:
    """The gripper is 0 when open and 1 when closed, in actions and in proprio."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(action[:, :6], gripper.opening(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_dobbe(raw: RawEpisode) -> dict:
    """Dobb-E: a hand-held gripper with one camera on it."""
    action = raw.arrays["steps/action"]
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": columns(action[:, :6], gripper.kept(action[:, 6])),
        "language": instructions(raw, INSTRUCTION),
    }


def standardize_pusht(raw: RawEpisode) -> dict:
    """Pushing in a plane; proprio is the position there."""
    return {
        "proprio": raw.arrays["steps/observation/robot_state"],
        "action": delta_with_changes(raw),
        "language": instructions(raw, NATURAL),
    }


SPECS = (
    DatasetSpec(
        name="nyu_door_opening_surprising_effectiveness",
        cameras={"wrist": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=3.0,
        standardize=standardize_door_opening,
    ),
    DatasetSpec(
        name="nyu_franka_play_dataset_converted_externally_to_rlds",
        cameras={
            "primary": "steps/observation/image",
            "secondary": "steps/observation/image_additional_view",
        },
        # Integers of RealSense cameras, whose unit is a millimetre unless changed.
        depth={
            "primary": "steps/observation/depth",
            "secondary": "steps/observation/depth_additional_view",
        },
        depth_scale={"primary": 0.001, "secondary": 0.001},
        action=DELTA_POSE,
        control_hz=3.0,
        standardize=standardize_franka_play,
    ),
    DatasetSpec(
        name="nyu_rot_dataset_converted_externally_to_rlds",
        cameras={"primary": "steps/observation/image"},
        action=DELTA_POSE,
        control_hz=3.0,
        standardize=standardize_rot,
    ),
    DatasetSpec(
        name="dobbe",
        cameras={"wrist": "steps/observation/wrist_image"},
        action=DELTA_POSE,
        control_hz=3.75,
        standardize=standardize_dobbe,
    ),
    DatasetSpec(
        name="columbia_cairlab_pusht_real",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/wrist_image",
        },
        action=DELTA_POSE,
        control_hz=10.0,
        standardize=standardize_pusht,
    ),
)
