"""A clean data set of an arm that grasps and lifts, and ways to spoil it.

Every episode: 12 steps of random motion, the gripper closes, 12 steps up. Actions are
displacements in metres and rotation vectors in radians, in the frame of the base.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vla_jax.data.checks.finding import Finding, Report
from vla_jax.data.index import open_index
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.standardize import DatasetSpec
from vla_jax.data.validate import validate
from vla_jax.data.write import Image, RLDSWriter, Tensor, Text

LENGTH, GRASP = 24, 12
FEATURES = {
    "image": Image(8, 8),
    "action": Tensor(np.float32, (7,)),
    "pose": Tensor(np.float32, (7,)),
    "force": Tensor(np.float32),
    "timestamp": Tensor(np.float32),
    "text": Text(),
    "is_first": Tensor(np.bool_),
    "is_last": Tensor(np.bool_),
    "is_terminal": Tensor(np.bool_),
}
# 1 m above the base, looking down: z forward, y down, x right.
INTRINSICS = [[8, 0, 4], [0, 8, 4], [0, 0, 1]]
EXTRINSICS = [[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, -1, 1], [0, 0, 0, 1]]


def standardize(raw: RawEpisode) -> dict:
    action, text = raw.arrays["steps/action"], raw.text["steps/text"][0]
    return {
        "proprio": np.concatenate([raw.arrays["steps/pose"], action[:, 6:]], axis=1),
        "action": action,
        "language": [text.decode("utf-8", "replace")],
        "pose": raw.arrays["steps/pose"],
        "camera": {"primary": {"intrinsics": INTRINSICS, "extrinsics": EXTRINSICS}},
        "success": True,
    }


ARM = DatasetSpec(
    name="arm",
    cameras={"primary": "steps/image"},
    action=("relative",) * 6 + ("gripper",),
    control_hz=10.0,
    standardize=standardize,
    holdout=0.2,
)


def episode(number: int, length: int = LENGTH) -> dict:
    """The steps of a clean episode."""
    rng = np.random.default_rng([7, number])
    action = np.zeros((length, 7))
    action[:, :3] = rng.normal(0, 0.01, (length, 3))
    action[:, 3:6] = rng.normal(0, 0.05, (length, 3))
    action[:, 6] = np.arange(length) < GRASP
    action[GRASP:, 2] = np.abs(action[GRASP:, 2]) + 0.01
    step = np.arange(length)
    return {
        "image": rng.integers(0, 255, (length, 8, 8, 3)).astype(np.uint8),
        "action": action.astype(np.float32),
        "pose": play(action),
        "force": rng.normal(size=length).astype(np.float32),
        "timestamp": (step / 10).astype(np.float32),
        "text": ["lift the cup" if number % 2 else "raise the lid"] * length,
        "is_first": step == 0,
        "is_last": step == length - 1,
        "is_terminal": step == length - 1,
    }


def play(action: np.ndarray) -> np.ndarray:
    """The poses that actions lead to, each one step later."""
    pose = np.zeros((len(action), 7))
    pose[0] = (0, 0, 0.3, 0, 0, 0, 1)
    for t in range(len(action) - 1):
        pose[t + 1, :3] = pose[t, :3] + action[t, :3]
        pose[t + 1, 3:] = rotate(action[t, 3:6], pose[t, 3:])
    return pose.astype(np.float32)


def rotate(vector: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """Turns an orientation, xyzw, by a rotation vector in the frame of the base."""
    angle = max(np.linalg.norm(vector), 1e-12)
    x, y, z = np.sin(angle / 2) * vector / angle
    w = np.cos(angle / 2)
    left = [[w, -z, y, x], [z, w, -x, y], [-y, x, w, z], [-x, -y, -z, w]]
    return np.array(left) @ quaternion


def write_arm(
    path,
    change: Callable[[int, dict], dict | None] = lambda number, steps: None,
    *,
    episodes: int = 5,
) -> Path:
    """Writes the data set below `path` and gives its version folder.

    `change(number, steps)` alters the steps of an episode in place, or returns others.
    """
    with RLDSWriter(path, "arm", FEATURES) as writer:
        for number in range(episodes):
            steps = episode(number)
            writer.write("train", change(number, steps) or steps)
    return writer.folder


def check(path, change=lambda number, steps: None, spec=ARM, **options) -> Report:
    """The report on a data set that is spoiled by `change`."""
    folder = write_arm(path, change, **options)
    return validate(open_index(folder, spec, progress=False))[0]


def problems(report: Report) -> list[Finding]:
    return [f for f in report.findings if f.level in ("error", "warning")]


def found(report: Report, name: str) -> Finding:
    """The one finding of a check."""
    (finding,) = [f for f in report.findings if f.check == name]
    return finding
