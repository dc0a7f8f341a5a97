"""CALVIN (Mees et al., 2022): a simulated table with drawer, slider and blocks.

Actions are displacements of the tool in the frame of the world, cut to -1..1: one unit
is 0.02 m, and 0.05 rad of the difference of Euler angles. Two cameras, 30 steps per
second. The simulator is not part of this package.
"""

import numpy as np

from vla_jax.data.oxe import gripper
from vla_jax.data.oxe.language import INSTRUCTION, instructions
from vla_jax.data.oxe.motion import columns, euler_to_quaternion
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.spec import DatasetSpec

ACTION = ("relative",) * 6 + ("gripper",)
_BASE = np.array([-0.34, -0.46, 0.24])  # metres, of the robot, in all four scenes


def standardize_calvin(raw: RawEpisode) -> dict:
    """Proprio is position, Euler angles and the last gripper command, as GR-1 has it.

    The state also has the opening width and seven joints, which are left out. The pose
    is that of the tool between the fingers.
    """
    action = raw.arrays["steps/action"]
    state = raw.arrays["steps/observation/state"]
    return {
        "proprio": columns(
            state[:, :6], gripper.opening_from_signed(state[:, 14], closed=-1)
        ),
        "action": columns(
            action[:, :6], gripper.opening_from_signed(action[:, 6], closed=-1)
        ),
        "language": instructions(raw, INSTRUCTION),
        "pose": columns(state[:, :3] - _BASE, euler_to_quaternion(state[:, 3:6])),
    }


def _spec(name: str, primary: str, wrist: str) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        cameras={
            "primary": f"steps/observation/{primary}",
            "wrist": f"steps/observation/{wrist}",
        },
        action=ACTION,
        control_hz=30.0,
        standardize=standardize_calvin,
    )


# As `launch/convert.py --from=calvin` writes it, and the published `calvin_abc`.
CALVIN = _spec("calvin", "rgb_static", "rgb_gripper")

DATASETS = {
    spec.name: spec
    # The second is what another public program writes, with the same numbers.
    for spec in (CALVIN, _spec("calvin_images", "image", "wrist_image"))
}
