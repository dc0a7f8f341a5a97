"""CALVIN as its authors publish it: one file per step, instructions for some stretches.

training/episode_0358482.npz          rgb_static, rgb_gripper, robot_obs, rel_actions
training/lang_annotations/auto_lang_ann.npy
validation/...                        the same

Every stretch of steps with an instruction becomes an episode; stretches overlap, and a
step may be in several. What was recorded between them has no instruction and is left
out. The result is read by the data set entry "calvin".
"""

import dataclasses
import functools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vla_jax.data.calvin import ACTION, CALVIN
from vla_jax.data.convert.layout import (
    EpisodeKey,
    Layout,
    SourceEpisode,
    require_language,
)
from vla_jax.data.convert.object_arrays import read_objects

_SPLITS = {"training": "train", "validation": "val"}
_CAMERAS = ("rgb_static", "rgb_gripper")
_ANNOTATIONS = "lang_annotations/auto_lang_ann.npy"
_STATE_DIM = 15


@dataclasses.dataclass(frozen=True)
class Annotation:
    """A stretch of steps and what is done in it.

    Attributes:
        first, last: numbers of its steps, both of them in it.
        task: CALVIN's name of the task, such as "open_drawer".
        language: the instruction.
    """

    first: int
    last: int
    task: str
    language: str


def read_layout(
    source: str | Path,
    *,
    state: Sequence[str] = (),
    cameras: Sequence[str] = (),
    instruction: str | None = None,
) -> Layout:
    """Finds out what a folder of CALVIN's holds.

    Args:
        source: a folder with `training` and `validation`, such as `task_ABC_D`, or one
            of the two.
        state: must be empty: the proprio is `robot_obs`.
        cameras: must be empty: both color cameras are converted.
        instruction: must be None: without its annotations CALVIN has no episodes.

    Raises:
        ValueError: for a folder of another layout, or a choice that CALVIN has not.
    """
    if state or cameras or instruction:
        raise ValueError(
            "--state, --cameras and --instruction do not apply to CALVIN: it has one "
            "state, two color cameras and its own annotations."
        )
    root = Path(source).expanduser()
    folders = [root / name for name in _SPLITS if (root / name / _ANNOTATIONS).exists()]
    if not folders and (root / _ANNOTATIONS).exists():
        folders = [root]
    if not folders:
        raise ValueError(
            f"{root} has neither training/{_ANNOTATIONS} nor {_ANNOTATIONS}; expected "
            "a folder such as task_ABC_D, unpacked."
        )
    known: dict[EpisodeKey, Annotation] = {}
    for folder in folders:
        split = _SPLITS.get(folder.name, "train")
        for number, annotation in enumerate(read_annotations(folder / _ANNOTATIONS)):
            place = f"{number}:{annotation.task}:{annotation.first}-{annotation.last}"
            key = EpisodeKey(str(folder / _ANNOTATIONS), place, split)
            known[key] = annotation
    first = next(iter(known))
    with _open(_step_file(_folder(first), known[first].first)) as step:
        size = {camera: _image(step, camera).shape[:2] for camera in _CAMERAS}
    return Layout(
        description=f"converted from CALVIN ({root.name})",
        episodes=list(known),
        image_size=size,
        state_dim=_STATE_DIM,
        action=ACTION,
        gripper=(-1.0, 1.0),
        control_hz=CALVIN.control_hz,
        read=functools.partial(_read, known),
        settings=("calvin",),
        image_prefix="",
        spec=CALVIN.name,
    )


def read_annotations(path: str | Path) -> list[Annotation]:
    """The annotated stretches of a split, in the order of the file.

    Raises:
        ValueError: a file of another content, naming what is wrong with it.
    """
    content = read_objects(path)
    try:
        language = content["language"]
        texts, tasks = list(language["ann"]), list(language["task"])
        stretches = np.array(content["info"]["indx"], np.int64).reshape(-1, 2)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"{path} is no annotation of CALVIN's, which has language/ann, "
            f"language/task and info/indx: {error!r}."
        ) from error
    if not len(texts) == len(tasks) == len(stretches) or not texts:
        raise ValueError(
            f"{path} has {len(stretches)} stretches of steps for {len(texts)} "
            f"instructions of {len(tasks)} tasks; expected one of each, and some."
        )
    found = []
    for (first, last), task, text in zip(stretches, tasks, texts, strict=True):
        if not 0 <= first <= last:
            raise ValueError(f"{path} has the stretch {first} to {last} of steps.")
        found.append(Annotation(int(first), int(last), str(task), str(text)))
    return found


def _read(known: Mapping[EpisodeKey, Annotation], key: EpisodeKey) -> SourceEpisode:
    annotation, folder = known[key], _folder(key)
    numbers = range(annotation.first, annotation.last + 1)
    files = [_step_file(folder, number) for number in numbers]
    state, action = [], []
    for file in files:
        with _open(file) as step:
            state.append(_numbers(step, "robot_obs", _STATE_DIM))
            action.append(_numbers(step, "rel_actions", len(ACTION)))
    done = np.zeros(len(files), np.float32)
    done[-1] = 1.0  # a stretch ends when its task is done
    language = require_language(annotation.language, str(key))
    return SourceEpisode(
        images={camera: _images(files, camera) for camera in _CAMERAS},
        state=np.stack(state),
        action=np.stack(action),
        language=[language] * len(files),
        reward=done,
        is_terminal=True,
    )


def _images(files: Sequence[Path], camera: str) -> Iterator[np.ndarray]:
    for file in files:
        with _open(file) as step:
            yield _image(step, camera)


def _folder(key: EpisodeKey) -> Path:
    return Path(key.file).parents[1]


def _step_file(folder: Path, number: int) -> Path:
    file = folder / f"episode_{number:07d}.npz"
    if not file.is_file():
        raise ValueError(f"There is no step {file}; is the folder unpacked whole?")
    return file


def _open(file: Path) -> np.lib.npyio.NpzFile:
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} cannot be read: {error}.") from error


def _numbers(step: Mapping, key: str, width: int) -> np.ndarray:
    value = step.get(key)
    if value is None or value.shape != (width,):
        found = sorted(step) if value is None else list(value.shape)
        raise ValueError(
            f"{key} of a step must have the shape [{width}]; found {found}."
        )
    return value.astype(np.float32)


def _image(step: Mapping, camera: str) -> np.ndarray:
    image = step.get(camera)
    if image is None or image.ndim != 3 or image.shape[2] != 3:
        found = sorted(step) if image is None else list(image.shape)
        raise ValueError(f"{camera} of a step must be [h, w, 3]; found {found}.")
    return image
