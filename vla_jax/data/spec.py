"""What training must know about a data set, and how a user's own file gives it."""

import dataclasses
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from vla_jax.data.rlds import RawEpisode

ACTION_KINDS = ("relative", "absolute", "gripper")


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
            effector in the frame of the robot's base), `objects [T, o, 7]` (the same of
            things on the table; zeros for one that is not there), `success` (a bool)
            and `camera`:
            standard name to a dict with `intrinsics`, `[3, 3]` or `[T, 3, 3]` in pixels
            of the stored image (0, 0 is the corner of its first pixel), or
            `extrinsics`, `[4, 4]` or `[T, 4, 4]`, camera from robot base in metres, or
            both. With `steps`, an increasing list of step numbers, only those steps
            enter the index: the last step of actions made from reached states, or all
            but every fifth of a recording that is too fast.
        depth: standard name to depth feature: an image of one channel, or a tensor `[h,
            w]` or `[h, w, 1]` however it is stored.
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


def load_spec(name: str) -> DatasetSpec:
    """Takes a spec from a file: `path/robot.py:ROBOT`.

    Raises:
        ValueError: for a missing file, or a name that is no spec in it.
    """
    path, _, variable = name.rpartition(":")
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


def _restore_spec(fields: dict) -> DatasetSpec:
    if fields["source"]:
        fields = fields | {"standardize": load_spec(fields["source"]).standardize}
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
