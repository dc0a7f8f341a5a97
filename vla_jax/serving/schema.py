"""What a policy reads and gives: sizes, names, and the check of an observation.

NumPy alone, because robots and clients use it too. An observation is
`{"image": {camera: uint8 [h w 3]}, "proprio": f32 [p]}`, for some policies with
`"depth": {camera: f32 [h w]}` in metres and `"camera": {camera: {"intrinsics": f32
[3 3], "extrinsics": f32 [4 4]}}`, the intrinsics in pixels of the image that came.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_jax.data.resize import resize, resize_depth, scale_intrinsics

Frame = dict[str, np.ndarray]  # flat: "image/primary", "depth/primary", "proprio", ...

_MATRICES = {"intrinsics": (3, 3), "extrinsics": (4, 4)}
_SMALLEST, _LARGEST = 1, 8192  # pixels on a side of an image


@dataclasses.dataclass(frozen=True)
class Schema:
    """What one robot's policy reads and gives.

    Attributes:
        dataset: name of the data set whose robot is driven.
        cameras: images that an observation must hold.
        image_size: height and width to which they are resized.
        window: frames the policy sees; the last ones of an episode.
        chunk: actions it predicts.
        proprio_dim: size of `proprio`.
        action: kind of every action dimension: "relative", "absolute" or "gripper",
            the latter last with 1 = open and 0 = closed.
        control_hz: actions per second that it was trained for.
        text_length: tokens of an instruction.
        text_truncate: longer instructions are cut off instead of refused.
        depth: cameras whose depth images an observation must hold.
        matrices: matrices that it must hold, such as "intrinsics/primary".
    """

    dataset: str
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    window: int
    chunk: int
    proprio_dim: int
    action: tuple[str, ...]
    control_hz: float
    text_length: int
    text_truncate: bool
    depth: tuple[str, ...] = ()
    matrices: tuple[str, ...] = ()

    @property
    def action_dim(self) -> int:
        """Size of an action."""
        return len(self.action)

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, Any], dataset: str | None = None
    ) -> "Schema":
        """Picks one robot of `Source.metadata()`.

        Raises:
            ValueError: an unknown data set, or several and none is named.
        """
        entry = pick_dataset(metadata["datasets"], dataset)
        name = entry["name"]
        matrices = metadata.get("camera_matrices", {}).get(name, {})
        return cls(
            dataset=name,
            cameras=tuple(c for c in metadata["cameras"] if c in entry["cameras"]),
            image_size=tuple(metadata["image_size"]),
            window=metadata["window"],
            chunk=metadata["chunk"],
            proprio_dim=entry["proprio_dim"],
            action=tuple(entry["action"]),
            control_hz=entry["control_hz"],
            text_length=metadata["text_length"],
            text_truncate=metadata["text_truncate"],
            depth=tuple(metadata.get("depth_cameras", {}).get(name, ())),
            matrices=tuple(
                f"{kind}/{camera}" for camera in matrices for kind in matrices[camera]
            ),
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Schema":
        """Reads what `to_json` gave; what a later version added is left out.

        Raises:
            ValueError: a field is missing.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        values = {
            key: tuple(value) if isinstance(value, list | tuple) else value
            for key, value in content.items()
            if key in fields
        }
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"The description of the policy lacks {error}.") from error

    def to_json(self) -> dict:
        """Plain lists and numbers."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    def check(self, observation: Mapping[str, Any]) -> Frame:
        """One frame: checked, resized as in training, and named as the model's inputs.

        Raises:
            ValueError: something is missing, of another type or size, or not finite.
        """
        image = _section(observation, "image", self.cameras)
        frame = {"proprio": _floats(observation, "proprio", (self.proprio_dim,))}
        sizes = {}
        for camera in self.cameras:
            pixels = _pixels(camera, image[camera])
            sizes[camera] = pixels.shape[:2]
            frame[f"image/{camera}"] = resize(pixels, *self.image_size)
        if self.depth:
            depth = _section(observation, "depth", self.depth)
            for camera in self.depth:
                metres = _depth(camera, depth[camera])
                sizes.setdefault(camera, metres.shape)
                frame[f"depth/{camera}"] = resize_depth(metres, *self.image_size)
        for name in self.matrices:
            kind, camera = name.split("/", 1)
            section = _section(observation, "camera", (camera,))
            matrix = _floats(section[camera], kind, _MATRICES[kind])
            if kind == "intrinsics":
                matrix = scale_intrinsics(matrix, sizes[camera], self.image_size)
            frame[name] = matrix
        return frame

    def stack(self, frames: Sequence[Frame]) -> Frame:
        """The last frames as a window, the first repeated where there is no past.

        Returns:
            the arrays of the frames with an axis `t` in front, and `frame_mask [t]`.
        """
        frames = list(frames)[-self.window :]
        missing = self.window - len(frames)
        padded = [frames[0]] * missing + frames
        return {
            **{key: np.stack([frame[key] for frame in padded]) for key in frames[0]},
            "frame_mask": np.arange(self.window) >= missing,
        }

    def input_shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape, without the batch, and type of every input of the model."""
        t, (h, w), length = self.window, self.image_size, self.text_length
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "proprio": ((t, self.proprio_dim), "float32"),
            "frame_mask": ((t,), "bool"),
            "tokens": ((length,), "int32"),
            "token_mask": ((length,), "bool"),
            "seed": ((), "uint32"),
            "call": ((), "uint32"),
        }
        for camera in self.cameras:
            shapes[f"image/{camera}"] = ((t, h, w, 3), "uint8")
        for camera in self.depth:
            shapes[f"depth/{camera}"] = ((t, h, w), "float32")
        for name in self.matrices:
            shapes[name] = ((t, *_MATRICES[name.split("/")[0]]), "float32")
        return shapes


def pick_dataset(datasets: Sequence[Mapping[str, Any]], name: str | None) -> Mapping:
    """The entry of `metadata["datasets"]` whose robot is being driven.

    Raises:
        ValueError: an unknown name, or several data sets and none is named.
    """
    names = [entry["name"] for entry in datasets]
    if name is None:
        if len(datasets) > 1:
            raise ValueError(
                f"The policy was trained on {names}; say whose robot it drives with "
                "`dataset`."
            )
        return datasets[0]
    if name not in names:
        raise ValueError(f"Unknown dataset {name!r}; the policy knows {names}.")
    return datasets[names.index(name)]


def _section(observation: Mapping, name: str, wanted: Sequence[str]) -> Mapping:
    """A nested part of an observation that has all cameras."""
    section = observation.get(name, {}) if isinstance(observation, Mapping) else {}
    if not isinstance(section, Mapping):
        raise ValueError(
            f"{name!r} is a {type(section).__name__}; expected a map from camera to "
            "array."
        )
    for camera in wanted:
        if camera not in section:
            raise ValueError(
                f"The policy needs camera {camera!r} in {name!r}; the observation has "
                f"{sorted(map(str, section))}."
            )
    return section


def _pixels(camera: str, value: Any) -> np.ndarray:
    image = np.asarray(value)
    sides = image.shape[:2]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"Image {camera!r} is {image.dtype} {image.shape}; the policy needs uint8 "
            "(h, w, 3)."
        )
    if not all(_SMALLEST <= side <= _LARGEST for side in sides):
        raise ValueError(
            f"Image {camera!r} has {sides[0]} x {sides[1]} pixels; a side may have "
            f"{_SMALLEST} to {_LARGEST}."
        )
    return image


def _depth(camera: str, value: Any) -> np.ndarray:
    depth = np.asarray(value)
    if depth.ndim != 2 or depth.dtype.kind != "f" or not 0 < depth.size <= _LARGEST**2:
        raise ValueError(
            f"Depth {camera!r} is {depth.dtype} {depth.shape}; the policy needs "
            "float32 (h, w) in metres, 0 where unknown."
        )
    if not np.isfinite(depth).all():
        raise ValueError(
            f"Depth {camera!r} has values that are not finite; 0 stands for unknown."
        )
    return depth.astype(np.float32)


def _floats(section: Mapping, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A small array of finite numbers."""
    if not isinstance(section, Mapping) or name not in section:
        found = sorted(map(str, section)) if isinstance(section, Mapping) else section
        raise ValueError(f"The policy needs {name!r} {shape}; there is only {found}.")
    array = np.asarray(section[name])
    if array.dtype.kind not in "fiu" or array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape} and type {array.dtype}; the policy was "
            f"trained with {shape} numbers."
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are not finite: {array.tolist()}.")
    return array
