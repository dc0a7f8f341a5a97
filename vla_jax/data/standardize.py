"""From what a data set calls things to the standard episode; the table of data sets.

Standard: proprio and action in float32, the gripper last with 1 = open and 0 = closed,
language as alternatives for the same instruction, cameras under standard names. To add
your own robot, write a `DatasetSpec` in a file of your own and name it
`path/to/my_robot.py:MY_ROBOT`; nothing in this package has to change.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from vla_jax.data import aloha_sim, calvin, oxe
from vla_jax.data.rlds import RawEpisode
from vla_jax.data.simulated import camera_matrices
from vla_jax.data.spec import ACTION_KINDS, DatasetSpec, load_spec
from vla_jax.names import did_you_mean

__all__ = [
    "ACTION_KINDS",
    "DATASETS",
    "DatasetSpec",
    "Episode",
    "decode_language",
    "resolve_spec",
    "standardize_episode",
    "standardize_metaworld",
]

METAWORLD_CLOSED = 0.6  # effort of a gripper that is to hold something
_METAWORLD_CAMERAS = {
    "primary": "steps/observation/image",
    "wrist": "steps/observation/wrist_image",
}
# Meta-World's hand points down and is not turned; its quaternion, xyzw, to 2 degrees.
_METAWORLD_HAND = (0.0, 0.5**0.5, 0.0, 0.5**0.5)
_REQUIRED = ("proprio", "action", "language")
_OPTIONAL = ("pose", "objects", "camera", "success", "steps")
_MATRICES = {"intrinsics": 3, "extrinsics": 4}


@dataclasses.dataclass(frozen=True)
class Episode:
    """A standard episode without its images.

    Attributes:
        proprio: f32 `[T, p]`.
        action: f32 `[T, a]`.
        language: alternatives of each step, or one list for all; possibly empty.
        pose: f32 `[T, 7]` or None.
        objects: f32 `[T, o, 7]` or None.
        camera: camera to `intrinsics`, f32 `[T, 3, 3]`, and `extrinsics`, f32
            `[T, 4, 4]`, as far as they are known.
        success: whether the task was done, or None.
        steps: int64 `[T]`, the steps of the raw episode that these are.
    """

    proprio: np.ndarray
    action: np.ndarray
    language: list[list[str]]
    pose: np.ndarray | None
    objects: np.ndarray | None
    camera: Mapping[str, Mapping[str, np.ndarray]]
    success: bool | None
    steps: np.ndarray


def standardize_episode(spec: DatasetSpec, raw: RawEpisode) -> Episode:
    """Applies a spec to one episode and checks what it gives.

    Raises:
        ValueError: for a missing or unknown key, a wrong shape, a value that is not
            finite.
    """
    fields = spec.standardize(raw)
    unknown = sorted(set(fields) - set(_REQUIRED + _OPTIONAL))
    given = {key for key, value in fields.items() if value is not None}
    missing = sorted(set(_REQUIRED) - given)
    if unknown or missing:
        raise ValueError(
            f"standardize of data set {spec.name!r} returned {sorted(fields)}: missing "
            f"{missing}, unknown {unknown}; expected {list(_REQUIRED)} and optionally "
            f"{list(_OPTIONAL)}."
        )
    arrays = {}
    for key in ("proprio", "action", "pose"):
        if fields.get(key) is None:
            arrays[key] = None
            continue
        array = np.asarray(fields[key], np.float32)
        width, columns = {
            "action": (len(spec.action), f"one column per action kind {spec.action}"),
            "pose": (7, "x, y, z and a quaternion xyzw"),
            "proprio": ("p", "one row per step"),
        }[key]
        fits = array.ndim == 2 and width in ("p", array.shape[1])
        if not fits or len(array) != raw.num_steps:
            raise ValueError(
                f"{key} of data set {spec.name!r} has shape {list(array.shape)}; "
                f"expected [{raw.num_steps}, {width}] ({columns})."
            )
        if not np.isfinite(array).all():
            step, dimension = np.argwhere(~np.isfinite(array))[0]
            raise ValueError(
                f"{key} of data set {spec.name!r} is {array[step, dimension]} at step "
                f"{step}, dimension {dimension}; expected finite numbers."
            )
        arrays[key] = array
    arrays["objects"] = _objects(spec, fields.get("objects"), raw.num_steps)
    language = _language(spec, fields["language"], raw.num_steps)
    camera = _matrices(spec, fields.get("camera") or {}, raw.num_steps)
    steps = _steps(spec, fields.get("steps"), raw.num_steps)
    success = fields.get("success")
    return Episode(
        **{key: None if a is None else a[steps] for key, a in arrays.items()},
        language=language if len(language) == 1 else [language[i] for i in steps],
        camera={
            name: {key: matrix[steps] for key, matrix in matrices.items()}
            for name, matrices in camera.items()
        },
        success=None if success is None else bool(success),
        steps=steps,
    )


def resolve_spec(name: str) -> DatasetSpec:
    """Finds a spec by its name in `DATASETS`, or in a file: `path/robot.py:ROBOT`.

    Raises:
        ValueError: for an unknown name, listing the alternatives.
    """
    if name in DATASETS:
        return DATASETS[name]
    path, colon, _ = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ValueError(
            f"Unknown data set {name!r}; {did_you_mean(name, DATASETS)} Or name a spec "
            "in your own file: 'path/to/my_robot.py:MY_ROBOT'."
        )
    return load_spec(name)


def decode_language(strings: Sequence[bytes]) -> list[str] | list[list[str]]:
    """Instructions of a text feature: one for the episode if all steps agree."""
    texts = [string.decode("utf-8", errors="replace") for string in strings]
    if len(set(texts)) == 1:
        return texts[:1]
    return [[text] for text in texts]


def standardize_metaworld(raw: RawEpisode) -> dict:
    """Meta-World as `launch/collect.py` writes it."""
    action = raw.arrays["steps/action"]
    # Meta-World's number of the gripper is an effort, which opens from -1 on.
    effort = action[:, -1:]
    gripper = np.clip((METAWORLD_CLOSED - effort) / (METAWORLD_CLOSED + 1), 0, 1)
    state = raw.arrays["steps/observation/state"]
    rotation = np.broadcast_to(_METAWORLD_HAND, (len(state), 4))
    return {
        "proprio": state,
        "action": np.concatenate([action[:, :-1], gripper], axis=1),
        "language": decode_language(raw.text["steps/language_instruction"]),
        "pose": np.concatenate([state[:, :3], rotation], axis=1),
        "camera": camera_matrices(raw, _METAWORLD_CAMERAS),
    }


DATASETS = {
    "metaworld": DatasetSpec(
        name="metaworld",
        cameras=_METAWORLD_CAMERAS,
        action=("relative", "relative", "relative", "gripper"),
        control_hz=80.0,
        standardize=standardize_metaworld,
    ),
    **aloha_sim.DATASETS,
    **calvin.DATASETS,
    **oxe.DATASETS,
}


def _objects(spec: DatasetSpec, objects, num_steps: int) -> np.ndarray | None:
    """Checks the poses of objects."""
    if objects is None:
        return None
    array = np.asarray(objects, np.float32)
    fits = array.ndim == 3 and array.shape[::2] == (num_steps, 7)
    if not fits or not np.isfinite(array).all():
        raise ValueError(
            f"objects of data set {spec.name!r} have the shape {list(array.shape)}; "
            f"expected finite numbers of shape [{num_steps}, objects, 7] (x, y, z and "
            "a quaternion xyzw; zeros for an object that is not there)."
        )
    return array


def _language(spec: DatasetSpec, language, num_steps: int) -> list[list[str]]:
    """Normalizes the two forms of `language`; empty instructions are left out."""
    steps = [language] if _are_strings(language) else language
    is_list = isinstance(steps, list | tuple)
    if not is_list or len(steps) not in (1, num_steps):
        size = f" of {len(steps)}" if is_list else ""
        raise ValueError(
            f"language of data set {spec.name!r} is a {type(language).__name__}{size}; "
            "expected a list of strings, or a list of strings for each of the "
            f"{num_steps} steps."
        )
    if not all(_are_strings(step) for step in steps):
        raise ValueError(
            f"language of data set {spec.name!r} holds something that is no string."
        )
    return [[text for text in step if text.strip()] for step in steps]


def _steps(spec: DatasetSpec, steps, num_steps: int) -> np.ndarray:
    """The steps to keep: all of them, unless `standardize` names some."""
    if steps is None:
        return np.arange(num_steps)
    array = np.asarray(steps)
    integer = array.ndim == 1 and array.size and array.dtype.kind in "iu"
    if not integer or (np.diff(array, prepend=-1) < 1).any() or array[-1] >= num_steps:
        raise ValueError(
            f"steps of data set {spec.name!r} is {steps}; expected increasing numbers "
            f"of the {num_steps} steps, at least one."
        )
    return array.astype(np.int64)


def _matrices(spec: DatasetSpec, cameras: Mapping, num_steps: int) -> dict:
    """Checks camera matrices; those of the whole episode are repeated for its steps."""
    known = sorted({*spec.cameras, *spec.depth})
    arrays = {}
    for camera, matrices in cameras.items():
        where = f"camera {camera!r} of {spec.name!r}"
        if camera not in known:
            raise ValueError(f"There is no {where}; {did_you_mean(camera, known)}")
        arrays[camera] = {}
        for key, matrix in matrices.items():
            if key not in _MATRICES:
                raise ValueError(
                    f"Unknown matrix {key!r} for {where}; "
                    f"{did_you_mean(key, _MATRICES)}"
                )
            size, array = _MATRICES[key], np.asarray(matrix, np.float32)
            shape = (num_steps, size, size)
            if array.shape not in (shape, shape[1:]) or not np.isfinite(array).all():
                raise ValueError(
                    f"{key} of {where} have the shape {list(array.shape)}; expected "
                    f"finite numbers of shape {list(shape[1:])} or {list(shape)}."
                )
            last_row = np.eye(size, dtype=np.float32)[-1]
            if np.any(array[..., -1, :] != last_row):
                raise ValueError(
                    f"The last row of the {key} of {where} is not {last_row.tolist()}."
                )
            arrays[camera][key] = np.broadcast_to(array, shape)
    return arrays


def _are_strings(texts) -> bool:
    is_list = isinstance(texts, list | tuple)
    return is_list and all(isinstance(text, str) for text in texts)
