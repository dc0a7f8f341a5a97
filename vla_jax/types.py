"""What flows through a policy: one documented data contract for every model.

The numpy side of the loader makes nested dicts with the same names; `batch_from_dict`
turns them into these structs. Masks are True where something is real.

Axes: b batch, t frames in the window, c chunk step, a action, p proprio, h w pixels,
n tokens, l text, r readouts, d features, k points.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import struct


@struct.dataclass
class Observation:
    """The last `t` frames, oldest first; the present frame is the last one."""

    image: dict[str, jax.Array]  # uint8 [b t h w 3] per camera
    image_mask: dict[str, jax.Array]  # bool [b t] per camera
    proprio: jax.Array  # float32 [b t p], normalized
    frame_mask: jax.Array  # bool [b t], False before the first frame of an episode
    # camera -> float32 [b t h w] metres, 0 where unknown
    depth: dict[str, jax.Array] = struct.field(default_factory=dict)
    # camera -> {"intrinsics": float32 [b t 3 3] in pixels of `image`, (0, 0) the corner
    # of its first pixel; "extrinsics": float32 [b t 4 4], camera from robot base,
    # metres}. The last element is 1, and where a matrix is unknown it is all zeros
    camera: dict[str, dict[str, jax.Array]] = struct.field(default_factory=dict)


@struct.dataclass
class Task:
    """What to do, as token ids of the instruction."""

    tokens: jax.Array  # int32 [b l]
    token_mask: jax.Array  # bool [b l]


@struct.dataclass
class Batch:
    """One training batch. `labels` holds dicts of training-only arrays by the name of
    the function in `data/labels.py` that made them; none exists at run time."""

    observation: Observation
    task: Task
    action: jax.Array  # float32 [b c a], normalized
    action_mask: jax.Array  # bool [b c a]
    labels: dict[str, Any] = struct.field(default_factory=dict)
    dataset: jax.Array | None = None  # int32 [b], position in `data.datasets`


@struct.dataclass
class Tokens:
    """A run of sequence elements.

    `position`, the same for all examples and frames, is for trunks that add positions
    to queries and keys only; None leaves the positions to the trunk.
    """

    values: jax.Array  # float32 [b n d]
    mask: jax.Array  # bool [b n]
    position: jax.Array | None = None  # float32 [n d]


@struct.dataclass
class Context:
    """Everything that attention modules, the trunk and a head may read.

    Encoders fill `features` and `groups`; attention modules refine them and may add
    `maps`, `points` and `keypoints`; the trunk fills `tokens` and `readout`.
    """

    observation: Observation
    task: Task
    # camera -> level -> float32 [b t h w d], coarse levels have the larger names
    features: dict[str, dict[str, jax.Array]] = struct.field(default_factory=dict)
    # group -> frames of tokens: values [b t n d]; language has t = 1
    groups: dict[str, Tokens] = struct.field(default_factory=dict)
    tokens: Tokens | None = None  # [b n d], the trunk's output without the readouts
    readout: jax.Array | None = None  # float32 [b r d]
    # camera -> [b t h w] or, one for each point, [b t k h w]; in 0..1
    maps: dict[str, jax.Array] = struct.field(default_factory=dict)
    # camera -> [b t k 2], (x, y) in -1..1, from the first pixel's center to the last's
    points: dict[str, jax.Array] = struct.field(default_factory=dict)
    keypoints: dict[str, jax.Array] = struct.field(default_factory=dict)  # [b k 3] m


def batch_from_dict(batch: Mapping[str, Any]) -> Batch:
    """Makes the struct from the loader's nested dict of the same names.

    Keys that only the host needs (`episode`, `step`) are left out.
    """
    observation, task = batch["observation"], batch["task"]
    return Batch(
        observation=Observation(
            image=dict(observation["image"]),
            image_mask=dict(observation["image_mask"]),
            proprio=observation["proprio"],
            frame_mask=observation["frame_mask"],
            depth=dict(observation.get("depth", {})),
            camera=dict(observation.get("camera", {})),
        ),
        task=Task(tokens=task["tokens"], token_mask=task["token_mask"]),
        action=batch["action"],
        action_mask=batch["action_mask"],
        labels=dict(batch.get("labels", {})),
        dataset=batch.get("dataset"),
    )
