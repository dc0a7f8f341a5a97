"""What a policy attended to during an episode, and how steady that was."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vla_jax.simulation.point_metrics import measure, rescale, to_pixels


@dataclasses.dataclass(frozen=True)
class Sight:
    """Where the objects of a task are, in one state.

    Attributes:
        positions: [o, 3] in metres.
        pixels: camera to projected centers [o, 2] in pixels of 480 by 640, NaN for
            what is behind the camera.
    """

    positions: np.ndarray
    pixels: Mapping[str, np.ndarray]


class Track:
    """Attention points of one episode, and the objects they may have followed."""

    def __init__(self, cameras: Sequence[str], size: tuple[int, int]):
        """Starts empty.

        Args:
            cameras: of each attention point.
            size: rows and columns of the pictures that the policy sees.
        """
        self._cameras, self._size = tuple(cameras), size
        self._points: list[np.ndarray | None] = []
        self._future: list[np.ndarray | None] = []
        self._sights: list[Sight | None] = []

    def add(self, diagnostics: Mapping[str, np.ndarray], sight: Sight | None) -> None:
        """Notes one step.

        Args:
            diagnostics: of the policy: `points` [k, 2] and optionally `future_points`
                [c, k, 2], x before y in [-1, 1]; empty when it did not look.
            sight: the objects in the state that it looked at.

        Raises:
            ValueError: points of another number than there are cameras for them.
        """
        points = diagnostics.get("points")
        expected = (len(self._cameras), 2)
        if points is not None and points.shape != expected:
            raise ValueError(
                f"The policy gave points of shape {points.shape}; its point_cameras "
                f"{list(self._cameras)} ask for {expected}."
            )
        self._points.append(points)
        self._future.append(diagnostics.get("future_points"))
        self._sights.append(sight)

    def arrays(self) -> dict[str, np.ndarray]:
        """The track of t steps, in pixels of 480 by 640.

        Returns:
            `points` [t k 2]; `mask` bool [t], whether the policy looked; where known,
            `future_points` [t c k 2], `positions` [t o 3] and `objects/<camera>`
            [t o 2].
        """
        mask = np.array([points is not None for points in self._points], bool)
        arrays = {
            "mask": mask,
            "points": self._stack(self._points, (len(self._cameras), 2)),
        }
        if mask.any() and self._future[int(mask.argmax())] is not None:
            shape = self._future[int(mask.argmax())].shape
            arrays["future_points"] = self._stack(self._future, shape)
        if self._sights and all(sight is not None for sight in self._sights):
            arrays["positions"] = np.stack([s.positions for s in self._sights])
            for camera in self._sights[0].pixels:
                pixels = np.stack([sight.pixels[camera] for sight in self._sights])
                arrays[f"objects/{camera}"] = pixels
        return arrays

    def measure(self) -> dict[str, float]:
        """The metrics of `point_metrics.measure`; empty if the policy never looked."""
        arrays = self.arrays()
        if not arrays["mask"].any():
            return {}
        return measure(
            arrays["points"],
            arrays.get("future_points"),
            arrays["mask"],
            cameras=self._cameras,
            objects={
                key.partition("/")[2]: pixels
                for key, pixels in arrays.items()
                if key.startswith("objects/")
            },
            positions=arrays.get("positions"),
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes `arrays` and the points' `cameras` as .npz, for pictures of them."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        arrays = self.arrays()
        if "future_points" in arrays:  # half of a pixel in a thousand will do
            arrays["future_points"] = arrays["future_points"].astype(np.float16)
        with temporary.open("wb") as file:
            np.savez_compressed(file, cameras=np.array(self._cameras), **arrays)
        os.replace(temporary, path)

    def _stack(self, values: Sequence, shape: tuple[int, ...]) -> np.ndarray:
        """Pixels of every step, zeros where the policy did not look."""
        nothing = np.zeros(shape)
        steps = [
            nothing if value is None else to_pixels(value, self._size)
            for value in values
        ]
        return np.stack(steps) if steps else np.zeros((0, *shape))


def see_objects(environment, cameras: Sequence[str]) -> Sight | None:
    """Where an environment's objects are; None where it has none to tell of."""
    if not has_objects(environment):
        return None
    # Here, since MuJoCo's part of the library is imported in worker processes only.
    from vla_jax.simulation.rendering import project

    positions = environment.object_poses()[:, :3]
    pixels = {}
    for camera in cameras:
        centers = project(positions, *environment.camera_matrices(camera))
        pixels[camera] = rescale(centers, environment.image_size)
    return Sight(positions, pixels)


def has_objects(environment) -> bool:
    """Whether poses of objects are told; an environment need not have the attribute."""
    return bool(getattr(environment, "objects", ()))
