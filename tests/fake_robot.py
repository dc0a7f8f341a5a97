"""A tiny data set with all that is optional: gripper, poses, objects, depth, matrices.

Episode 0 has eight steps and gripper events at steps 2 and 5; episode 1 has four steps
and no event. Depth counts millimetres: 1000 per episode, 100 per step, 1 per pixel.
"""

from pathlib import Path

import numpy as np

from tests import fake
from vla_jax.data.standardize import DatasetSpec
from vla_jax.data.write import Image, RLDSWriter, Tensor

GRIPPER = ([1, 1, 0, 0, 0, 1, 1, 1], [1, 1, 1, 0])
INTRINSICS = [[10, 0, 4], [0, 20, 6], [0, 0, 1]]  # of an image of 8x8
NAME = f"{__file__}:ROBOT"


def standardize(raw) -> dict:
    """Matrices of the first camera: one that stays, one that moves by 1 m a step."""
    extrinsics = np.tile(np.eye(4), (raw.num_steps, 1, 1))
    extrinsics[:, 0, 3] = np.arange(raw.num_steps)
    objects = np.zeros((raw.num_steps, 2, 7))
    objects[:, 0] = raw.arrays["steps/pose"]
    if raw.num_steps > 4:  # the second object is in the first episode only
        objects[:, 1] = raw.arrays["steps/pose"] + [0, 0, 1, 0, 0, 0, 0]
    return {
        "proprio": raw.arrays["steps/pose"][:, :3],
        "action": raw.arrays["steps/action"],
        "language": ["go"],
        "pose": raw.arrays["steps/pose"],
        "objects": objects,
        "camera": {"primary": {"intrinsics": INTRINSICS, "extrinsics": extrinsics}},
        "success": raw.num_steps > 4,
    }


ROBOT = DatasetSpec(
    name="robot",
    cameras={"primary": "steps/image"},
    action=("relative", "gripper"),
    control_hz=5.0,
    standardize=standardize,
    depth={"primary": "steps/depth"},
    holdout=0.0,
)


def depth(episode: int, step: int) -> np.ndarray:
    """The depth image of one step in millimetres, uint16 [4, 4, 1]."""
    pixels = np.arange(16, dtype=np.uint16).reshape(4, 4, 1)
    return pixels + np.uint16(1000 * episode + 100 * step)


def pose(episode: int, step: int) -> list[float]:
    """The pose of one step: it tells episode and step."""
    return [episode, step, 0.5, 0, 0, 0, 1]


def write_robot(path) -> Path:
    """Writes the data set below `path` and gives its version folder."""
    features = {
        "image": Image(8, 8),
        "depth": Image(4, 4, 1, encoding="png", dtype=np.uint16),
        "action": Tensor(np.float32, (2,)),
        "pose": Tensor(np.float32, (7,)),
    }
    with RLDSWriter(path, "robot", features, episodes_per_shard=1) as writer:
        for episode, gripper in enumerate(GRIPPER):
            steps = range(len(gripper))
            writer.write(
                "train",
                {
                    "image": [fake.image(episode, t) for t in steps],
                    "depth": np.stack([depth(episode, t) for t in steps]),
                    "action": np.array([[0, g] for g in gripper], np.float32),
                    "pose": np.array([pose(episode, t) for t in steps], np.float32),
                },
            )
    return writer.folder
