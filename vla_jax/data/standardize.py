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
_KEYS = ("proprio", "action", "language", "pose")


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
            effector in the frame of the robot's base).
        depth: standard name to depth image feature.
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
    """

    proprio: np.ndarray
    action: np.ndarray
    language: list[list[str]]
    pose: np.ndarray | None


def standardize_episode(spec: DatasetSpec, raw: RawEpisode) -> Episode:
    """Applies a spec to one episode and checks what it gives.

    Raises:
        ValueError: for a missing or unknown key, a wrong shape, a value that is not
            finite.
    """
    fields = spec.standardize(raw)
    unknown = sorted(set(fields) - set(_KEYS))
    given = {key for key, value in fields.items() if value is not None}
    missing = sorted({"proprio", "action", "language"} - given)
    if unknown or missing:
        raise ValueError(
            f"standardize of data set {spec.name!r} returned {sorted(fields)}: missing "
            f"{missing}, unknown {unknown}; expected {list(_KEYS)} (pose is optional)."
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
    return Episode(arrays["proprio"], arrays["action"], language, arrays["pose"])


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
