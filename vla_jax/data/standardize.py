"""From what a data set calls things to the standard episode; the table of data sets.

Standard: proprio and action in float32, the gripper last with 1 = open and 0 = closed,
language as alternatives for the same instruction, cameras under standard names. To add
your own robot, write a `DatasetSpec` in a file of your own and name it
`path/to/my_robot.py:MY_ROBOT`; nothing in this package has to change.
"""

import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vla_jax.data.rlds import RawEpisode

ACTION_KINDS = ("relative", "absolute", "gripper")
_REQUIRED = ("proprio", "action", "language")
_OPTIONAL = ("pose", "camera", "success")
_MATRICES = {"intrinsics": 3, "extrinsics": 4}


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """What training must know about a data set.

    Attributes:
        name: how messages and statistics call it.
        cameras: standard name to feature, `{"primary": "steps/observation/image"}`.
        action: kind of every dimension, "relative", "absolute" or "gripper"; the
            gripper, if there is one, comes last.
        control_hz: steps per second.
        standardize: raw episode to a dict with `proprio [T, p]`, `action [T, a]`,
            `language` (a list of alternatives for the episode, or one such list per
            step) and optionally `pose [T, 7]` (metres and xyzw quaternion of the end
            effector in the frame of the robot's base), `success` (a bool) and `camera`:
            standard name to a dict with `intrinsics`, `[3, 3]` or `[T, 3, 3]` in pixels
            of the stored image (0, 0 is the corner of its first pixel), or
            `extrinsics`, `[4, 4]` or `[T, 4, 4]`, camera from robot base in metres, or
            both.
        depth: standard name to depth image feature.
        depth_scale: metres per unit of a depth image; where it is left out, 0.001 for
            integers (millimetres) and 1 for other numbers.
        holdout: share of the training episodes held out for validation when the data
            set has no split "val", "validation" or "test".
        source: `file.py:NAME` that defines a spec from outside this package.
    """

    name: str
    cameras: Mapping[str, str]
    action: tuple[str, ...]
    control_hz: float
    standardize: Callable[[RawEpisode], dict]
    depth: Mapping[str, str] = dataclasses.field(default_factory=dict)
    depth_scale: Mapping[str, float] = dataclasses.field(default_factory=dict)
    holdout: float = 0.05
    source: str = ""

    def __post_init__(self):
        unknown = sorted(set(self.action) - set(ACTION_KINDS))
        if unknown or not self.action:
            raise ValueError(
                f"Data set {self.name!r} has the action kinds {self.action}; give one "
                f"of {list(ACTION_KINDS)} per dimension."
            )
        if "gripper" in self.action[:-1]:
            raise ValueError(
                f"Data set {self.name!r} has a gripper before the last action "
                f"dimension: {self.action}. The gripper comes last."
            )
        if not 0 <= self.holdout < 1:
            raise ValueError(
                f"Data set {self.name!r} holds out {self.holdout}; expected a share "
                "of at least 0 and less than 1."
            )
        unknown = sorted(set(self.depth_scale) - set(self.depth))
        if unknown:
            raise ValueError(
                f"Data set {self.name!r} has a depth_scale for {unknown}; its depth "
                f"cameras are {sorted(self.depth)}."
            )

    def __reduce__(self):
        # A function from a user's own file is not importable in a worker process: the
        # spec travels by the name of that file.
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if self.source:
            fields.pop("standardize")
        return _restore_spec, (fields,)


@dataclasses.dataclass(frozen=True)
class Episode:
    """A standard episode without its images.

    Attributes:
        proprio: f32 `[T, p]`.
        action: f32 `[T, a]`.
        language: alternatives of each step, or one list for all; possibly empty.
        pose: f32 `[T, 7]` or None.
        camera: camera to `intrinsics`, f32 `[T, 3, 3]`, and `extrinsics`, f32
            `[T, 4, 4]`, as far as they are known.
        success: whether the task was done, or None.
    """

    proprio: np.ndarray
    action: np.ndarray
    language: list[list[str]]
    pose: np.ndarray | None
    camera: Mapping[str, Mapping[str, np.ndarray]]
    success: bool | None


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
    language = _language(spec, fields["language"], raw.num_steps)
    success = fields.get("success")
    return Episode(
        **arrays,
        language=language,
        camera=_matrices(spec, fields.get("camera") or {}, raw.num_steps),
        success=None if success is None else bool(success),
    )


def resolve_spec(name: str) -> DatasetSpec:
    """Finds a spec by its name in `DATASETS`, or in a file: `path/robot.py:ROBOT`.

    Raises:
        ValueError: for an unknown name, listing the alternatives.
    """
    if name in DATASETS:
        return DATASETS[name]
    path, colon, variable = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ValueError(
            f"Unknown data set {name!r}; choose one of {sorted(DATASETS)}, or name a "
            "spec in your own file: 'path/to/my_robot.py:MY_ROBOT'."
        )
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ValueError(f"There is no file {file} to take {variable!r} from.")
    module = _load_file(file)
    spec = getattr(module, variable, None)
    if not isinstance(spec, DatasetSpec):
        specs = [key for key, v in vars(module).items() if isinstance(v, DatasetSpec)]
        raise ValueError(
            f"{file} has no DatasetSpec {variable!r}; it has {sorted(specs)}."
        )
    return dataclasses.replace(spec, source=f"{file}:{variable}")


def decode_language(strings: Sequence[bytes]) -> list[str] | list[list[str]]:
    """Instructions of a text feature: one for the episode if all steps agree."""
    texts = [string.decode("utf-8", errors="replace") for string in strings]
    if len(set(texts)) == 1:
        return texts[:1]
    return [[text] for text in texts]


def standardize_metaworld(raw: RawEpisode) -> dict:
    """Meta-World as `launch/collect.py` writes it."""
    action = raw.arrays["steps/action"]
    # Meta-World's gripper effort goes from -1 (open) to +1 (closed).
    gripper = (1 - action[:, -1:]) / 2
    return {
        "proprio": raw.arrays["steps/observation/state"],
        "action": np.concatenate([action[:, :-1], gripper], axis=1),
        "language": decode_language(raw.text["steps/language_instruction"]),
    }


DATASETS = {
    "metaworld": DatasetSpec(
        name="metaworld",
        cameras={
            "primary": "steps/observation/image",
            "wrist": "steps/observation/wrist_image",
        },
        action=("relative", "relative", "relative", "gripper"),
        control_hz=80.0,
        standardize=standardize_metaworld,
    ),
}


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


def _matrices(spec: DatasetSpec, cameras: Mapping, num_steps: int) -> dict:
    """Checks camera matrices; those of the whole episode are repeated for its steps."""
    known = sorted({*spec.cameras, *spec.depth})
    arrays = {}
    for camera, matrices in cameras.items():
        where = f"camera {camera!r} of {spec.name!r}"
        if camera not in known:
            raise ValueError(f"There is no {where}; choose one of {known}.")
        arrays[camera] = {}
        for key, matrix in matrices.items():
            if key not in _MATRICES:
                raise ValueError(
                    f"Unknown matrix {key!r} for {where}; choose one of "
                    f"{sorted(_MATRICES)}."
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


def _restore_spec(fields: dict) -> DatasetSpec:
    if fields["source"]:
        fields = fields | {"standardize": resolve_spec(fields["source"]).standardize}
    return DatasetSpec(**fields)


def _load_file(file: Path):
    """Runs a user's file once per content, as a module of its own."""
    content = hashlib.sha256(str(file).encode() + file.read_bytes()).hexdigest()[:16]
    name = f"vla_jax_dataset_{content}"
    if name not in sys.modules:
        module_spec = importlib.util.spec_from_file_location(name, file)
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[name] = module
        try:
            module_spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
