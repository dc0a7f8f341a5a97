"""What a converter tells about a source: what it holds, and how to read an episode."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

_WRIST = re.compile(r"wrist|hand|gripper")
_STANDARD = ("primary", "secondary")


@dataclasses.dataclass(frozen=True)
class EpisodeKey:
    """One episode of a source.

    Attributes:
        file: the file it is in, as messages call it.
        name: of the episode in that file, "" for all of it.
        split: "train", "val" or "test".
    """

    file: str
    name: str
    split: str = "train"

    def __str__(self) -> str:
        return f"{self.file}:{self.name}" if self.name else self.file


@dataclasses.dataclass(frozen=True)
class SourceEpisode:
    """One episode as read, time first.

    Attributes:
        images: camera to encoded JPEG bytes or uint8 `[h, w, 3]` arrays, one by one.
        state: f32 `[T, p]`.
        action: f32 `[T, a]`.
        language: the instruction of each step.
        reward: f32 `[T]`.
        is_terminal: False where recording just stopped.
        depth: camera to uint16 `[h, w]` arrays, millimetres, one by one.
    """

    images: Mapping[str, Iterable[bytes | np.ndarray]]
    state: np.ndarray
    action: np.ndarray
    language: Sequence[str]
    reward: np.ndarray
    is_terminal: bool
    depth: Mapping[str, Iterable[np.ndarray]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A source.

    Attributes:
        description: a sentence about where it comes from.
        episodes: what there is to convert.
        image_size: camera, by its name in the source, to height and width.
        state_dim: width of the proprio.
        action: kind of every action dimension, as `DatasetSpec` wants it.
        gripper: values of the last action dimension when closed and when open, or
            None without a gripper.
        control_hz: steps per second.
        read: reads one episode.
        settings: what else the episodes depend on; another value converts them anew.
        depth_size: depth camera, by its name in the source, to height and width.
    """

    description: str
    episodes: Sequence[EpisodeKey]
    image_size: Mapping[str, tuple[int, int]]
    state_dim: int
    action: tuple[str, ...]
    gripper: tuple[float, float] | None
    control_hz: float
    read: Callable[[EpisodeKey], SourceEpisode]
    settings: tuple[str, ...] = ()
    depth_size: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


def standard_cameras(names: Iterable[str]) -> dict[str, str]:
    """Standard names for the cameras of a source: standard to its own.

    The first camera on a wrist or hand is "wrist", the first two others "primary" and
    "secondary"; any more keep their names.
    """
    standard: dict[str, str] = {}
    for name in names:
        wanted = ("wrist",) if _WRIST.search(name.lower()) else _STANDARD
        free = [role for role in wanted if role not in standard]
        standard[free[0] if free else name] = name
    return standard


def standard_depth(names: Iterable[str], cameras: Mapping[str, str]) -> dict[str, str]:
    """Standard names for depth cameras: that of the color camera they belong to.

    `top_depth` belongs to `top`. One that belongs to none is named like a camera.

    Args:
        names: of the depth cameras in the source.
        cameras: what `standard_cameras` gives for the color cameras.
    """
    owners = {feature_name(own): standard for standard, own in cameras.items()}
    standard: dict[str, str] = {}
    lonely = []
    for name in names:
        bare = re.sub(r"_*depth_*", "_", feature_name(name)).strip("_")
        owner = owners.get(bare)
        if owner is None or owner in standard:
            lonely.append(name)
        else:
            standard[owner] = name
    for role, name in standard_cameras(lonely).items():
        standard[role if role not in standard else feature_name(name)] = name
    return standard


def feature_name(name: str) -> str:
    """A camera's name as a feature: `observation.images.top` becomes `top`."""
    return re.sub(r"\W", "_", name.rpartition("images.")[2])


def require_language(language: str | None, where: str) -> str:
    """The instruction of an episode.

    Raises:
        ValueError: when there is none.
    """
    if not language or not language.strip():
        raise ValueError(
            f"{where} has no instruction; give one for all episodes with "
            '--instruction="...".'
        )
    return language.strip()
