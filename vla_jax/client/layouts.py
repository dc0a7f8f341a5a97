"""What clients and servers call the parts of an observation, and how grippers count.

This library's names are `image/<camera>`, `depth/<camera>`,
`camera/<camera>/intrinsics`, `camera/<camera>/extrinsics`, `proprio` and `prompt`.
Scripts written for openpi use the names of its robots; a layout says which is which,
for both directions.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

GRIPPERS = ("open_1", "closed_1", "closed_1_open_-1")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names on the wire.

    Attributes:
        names: this library's name to those on the wire; several are joined in order.
        gripper: what the last action dimension means on the wire: "open_1" is 1 open
            and 0 closed, as in this library; "closed_1" is 0 open and 1 closed;
            "closed_1_open_-1" is -1 open and 1 closed.
    """

    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    gripper: str = "open_1"

    def read(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A flat message under this library's names.

        Raises:
            ValueError: a message that is no map, has two values of one name, or parts
                that cannot be joined.
        """
        flat = _flatten(message)
        used = {name for names in self.names.values() for name in names}
        found = {name: value for name, value in flat.items() if name not in used}
        for name, names in self.names.items():
            parts = [flat[part] for part in names if part in flat]
            if len(parts) == len(names):
                found[name] = parts[0] if len(parts) == 1 else _join(names, parts)
            elif parts:
                lacking = [part for part in names if part not in flat]
                raise ValueError(f"{name!r} needs {lacking} too.")
        return {name: _channels_last(name, value) for name, value in found.items()}

    def write(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """This library's flat observation under the names on the wire.

        Raises:
            ValueError: something that is in one piece here and in several there.
        """
        found = {}
        for name, value in observation.items():
            names = self.names.get(name, (name,))
            if len(names) > 1:
                raise ValueError(
                    f"{name!r} is {names} on the wire, and their sizes are unknown; "
                    "give them names of their own."
                )
            found[names[0]] = value
        return found

    def actions_out(self, actions: np.ndarray) -> np.ndarray:
        """Actions `[... a]` with the gripper as it is on the wire."""
        gripper = actions[..., -1]
        if self.gripper == "open_1":
            return actions
        turned = 1 - gripper if self.gripper == "closed_1" else 1 - 2 * gripper
        return np.concatenate([actions[..., :-1], turned[..., None]], -1)

    def actions_in(self, actions: np.ndarray) -> np.ndarray:
        """Actions `[... a]` from the wire with the gripper 1 open and 0 closed."""
        gripper = actions[..., -1]
        if self.gripper == "open_1":
            return actions
        turned = 1 - gripper if self.gripper == "closed_1" else (1 - gripper) / 2
        return np.concatenate([actions[..., :-1], turned[..., None]], -1)


LAYOUTS = {
    "vla_jax": Layout(),
    "libero": Layout(
        {
            "image/primary": ("observation/image",),
            "image/wrist": ("observation/wrist_image",),
            "proprio": ("observation/state",),
        },
        "closed_1_open_-1",
    ),
    "droid": Layout(
        {
            "image/primary": ("observation/exterior_image_1_left",),
            "image/wrist": ("observation/wrist_image_left",),
            "proprio": ("observation/joint_position", "observation/gripper_position"),
        },
        "closed_1",
    ),
    "aloha": Layout(
        {
            "image/primary": ("images/cam_high",),
            "image/secondary": ("images/cam_low",),
            "image/wrist": ("images/cam_right_wrist",),
            "image/wrist_left": ("images/cam_left_wrist",),
            "proprio": ("state",),
        }
    ),
}


def make_layout(name: str, names: Mapping[str, str], gripper: str | None) -> Layout:
    """A layout by name, with changes.

    Args:
        name: one of `LAYOUTS`.
        names: this library's name to the one on the wire; several joined by "+".
        gripper: one of `GRIPPERS`; None for the layout's own.

    Raises:
        ValueError: an unknown name.
    """
    if name not in LAYOUTS:
        raise ValueError(f"Unknown layout {name!r}; choose one of {sorted(LAYOUTS)}.")
    if gripper is not None and gripper not in GRIPPERS:
        raise ValueError(f"Unknown gripper {gripper!r}; choose one of {GRIPPERS}.")
    layout = LAYOUTS[name]
    changed = {key: tuple(value.split("+")) for key, value in names.items()}
    return Layout({**layout.names, **changed}, gripper or layout.gripper)


def _flatten(message: Any, prefix: str = "") -> dict[str, Any]:
    """Nested maps as one with keys joined by "/"."""
    if not isinstance(message, Mapping):
        raise ValueError(f"An observation is a map; a {type(message).__name__} came.")
    flat: dict[str, Any] = {}
    for key, value in message.items():
        if not isinstance(key, str):
            raise ValueError(f"Names are texts; {key!r} came.")
        name = f"{prefix}{key}"
        inner = _flatten(value, f"{name}/") if isinstance(value, Mapping) else None
        for other, leaf in ({name: value} if inner is None else inner).items():
            if other in flat:
                raise ValueError(f"The observation has {other!r} twice.")
            flat[other] = leaf
    return flat


def _join(names: tuple[str, ...], parts: list) -> np.ndarray:
    arrays = [np.asarray(part) for part in parts]
    arrays = [array[None] if array.ndim == 0 else array for array in arrays]
    if any(array.dtype.kind not in "fiu" for array in arrays):
        raise ValueError(f"{list(names)} must be arrays of numbers.")
    try:
        return np.concatenate(arrays, axis=-1)
    except ValueError:
        shapes = [array.shape for array in arrays]
        raise ValueError(
            f"{list(names)} have the shapes {shapes}, not to be joined."
        ) from None


def _channels_last(name: str, value: Any) -> Any:
    """Images of some of openpi's robots come as [3 h w]."""
    if not name.startswith("image/") or not isinstance(value, np.ndarray):
        return value
    if value.ndim >= 3 and value.shape[-3] == 3 and value.shape[-1] != 3:
        return np.moveaxis(value, -3, -1)
    return value
