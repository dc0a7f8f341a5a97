"""HDF5 demonstrations in the layouts of robomimic, LIBERO and ALOHA.

robomimic, LIBERO   data/demo_0/{actions, rewards, dones, obs/<name>}, many per file
                    attributes of `data`: env_args, and problem_info with LIBERO's
                    instruction; mask/valid names the demonstrations held out
ALOHA               action, observations/{qpos, images/<camera>}, one per file
                    images raw, or JPEG padded with zeros (attribute `compress`)
"""

import functools
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image as PILImage

from vla_jax.data.convert.layout import (
    EpisodeKey,
    Layout,
    SourceEpisode,
    require_language,
)

_STATES = (
    ("ee_pos", "ee_ori", "gripper_states"),  # LIBERO
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),  # robomimic
)
_ROBOSUITE_HZ, _ALOHA_HZ = 20.0, 50.0
_SPLITS = {"train": "train", "valid": "val", "test": "test"}


def read_layout(
    source: str | Path,
    *,
    state: Sequence[str] = (),
    cameras: Sequence[str] = (),
    instruction: str | None = None,
) -> Layout:
    """Finds out what HDF5 files hold.

    Args:
        source: a file, or a folder with files below it.
        state: observations that make up the proprio, in order; what the layout usually
            has when empty.
        cameras: image observations to convert; all when empty.
        instruction: of every episode, whatever the files say.

    Raises:
        ValueError: for files of neither layout, naming what was found.
    """
    files = _find_files(Path(source).expanduser())
    with _open(files[0]) as file:
        if "data" in file and isinstance(file["data"], h5py.Group):
            return _robomimic(files, file, state, cameras, instruction)
        if "action" in file and "observations" in file:
            return _aloha(files, file, state, cameras, instruction)
        raise ValueError(
            f"{files[0]} has neither robomimic's group 'data' nor ALOHA's 'action' and "
            f"'observations'; it has {sorted(file)}."
        )


def _robomimic(files, first, state, cameras, instruction) -> Layout:
    episodes = []
    for path in files:
        with _open(path) as file:
            episodes += _demos(path, file)
    if not episodes:
        raise ValueError(f"{files[0]} has no demonstrations in its group 'data'.")
    demo = first["data"][episodes[0].name]
    if "obs" not in demo:
        raise ValueError(
            f"{episodes[0]} has no observations ('obs'): render them first, with "
            "robomimic's dataset_states_to_obs.py."
        )
    images = _choose(demo["obs"], cameras, "--cameras", _image_names(demo["obs"]))
    states = state or next((s for s in _STATES if set(s) <= set(demo["obs"])), ())
    states = _choose(demo["obs"], states, "--state", [])
    settings = _json(first["data"].attrs.get("env_args", "{}")).get("env_kwargs", {})
    width = demo["actions"].shape[1]
    text = json.dumps(settings)  # nested in several ways by robosuite's versions
    absolute = '"control_delta": false' in text or '"input_type": "absolute"' in text
    kind = "absolute" if absolute else "relative"
    return Layout(
        description=f"converted from HDF5 of robomimic's layout ({files[0].name})",
        episodes=episodes,
        image_size={name: _size(demo["obs"][name]) for name in images},
        state_dim=sum(_width(demo["obs"][name]) for name in states),
        action=(kind,) * (width - 1) + ("gripper",),
        gripper=(1.0, -1.0),  # robosuite closes with positive effort
        control_hz=float(settings.get("control_freq", _ROBOSUITE_HZ)),
        read=functools.partial(_read_demo, tuple(images), tuple(states), instruction),
        settings=(*images, *states, instruction or ""),
    )


def _demos(path: Path, file: h5py.File) -> list[EpisodeKey]:
    """The demonstrations of one file, in the order of their numbers."""
    splits = {}
    for mask, names in file.get("mask", {}).items():
        if mask in _SPLITS:
            splits |= {_text(name): _SPLITS[mask] for name in names[()]}
    names = sorted(file["data"], key=lambda name: (len(name), name))
    return [EpisodeKey(str(path), n, splits.get(n, "train")) for n in names]


def _read_demo(images, states, instruction, key: EpisodeKey) -> SourceEpisode:
    with _open(Path(key.file)) as file:
        demo = file["data"][key.name]
        num_steps = len(demo["actions"])
        language = instruction or _libero_language(file["data"].attrs, demo.attrs)
        rewards = demo["rewards"][()] if "rewards" in demo else np.zeros(num_steps)
        return SourceEpisode(
            images={n: _stream(key.file, f"data/{key.name}/obs/{n}") for n in images},
            state=_columns(demo["obs"], states),
            action=demo["actions"][()],
            language=[require_language(language, str(key))] * num_steps,
            reward=rewards,
            is_terminal=bool(demo["dones"][-1]) if "dones" in demo else True,
        )


def _libero_language(*attributes) -> str | None:
    """The instruction among attributes: a string, or LIBERO's list of letters."""
    for attrs in attributes:
        language = _json(attrs.get("problem_info", "{}")).get("language_instruction")
        language = language or attrs.get("language_instruction")
        if language:
            parts = [language] if isinstance(language, str | bytes) else language
            return "".join(_text(part) for part in parts).strip().strip('"')
    return None


def _aloha(files, first, state, cameras, instruction) -> Layout:
    observations, width = first["observations"], first["action"].shape[1]
    pictures = observations.get("images", {})
    images = _choose(pictures, cameras, "--cameras", sorted(pictures))
    states = _choose(observations, state or ("qpos",), "--state", [])
    has_gripper = width in (7, 14)  # one arm or two, of six joints and a gripper
    last = "gripper" if has_gripper else "absolute"
    return Layout(
        description=f"converted from HDF5 of ALOHA's layout ({files[0].name})",
        episodes=[EpisodeKey(str(path), "") for path in files],
        image_size={name: _size(pictures[name]) for name in images},
        state_dim=sum(_width(observations[name]) for name in states),
        action=("absolute",) * (width - 1) + (last,),
        gripper=(0.0, 1.0) if has_gripper else None,
        control_hz=_ALOHA_HZ,
        read=functools.partial(_read_aloha, tuple(images), tuple(states), instruction),
        settings=(*images, *states, instruction or ""),
    )


def _read_aloha(images, states, instruction, key: EpisodeKey) -> SourceEpisode:
    with _open(Path(key.file)) as file:
        num_steps = len(file["action"])
        language = instruction
        for name in ("language_instruction", "instruction", "task"):
            language = language or _optional_text(file.attrs.get(name))
        return SourceEpisode(
            images={n: _stream(key.file, f"observations/images/{n}") for n in images},
            state=_columns(file["observations"], states),
            action=file["action"][()],
            language=[require_language(language, str(key))] * num_steps,
            reward=np.zeros(num_steps),
            is_terminal=True,
        )


def _find_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source.resolve()]
    found = [p for p in source.rglob("*") if p.suffix in (".hdf5", ".h5")]
    if not found:
        raise ValueError(f"There is no HDF5 file (.hdf5, .h5) at {source}.")
    # episode_2 before episode_10
    found = sorted(found, key=lambda p: (str(p.parent), len(p.name), p.name))
    return [path.resolve() for path in found]


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5: {error}.") from error


def _choose(group, wanted: Sequence[str], flag: str, default: Sequence[str]):
    """Names of observations; those wanted must exist, and at least one must."""
    names = list(wanted or default)
    missing = [name for name in names if name not in group]
    if missing or not names:
        raise ValueError(
            f"There is no observation {missing or 'chosen'}; choose with {flag} among "
            f"{sorted(group)}."
        )
    return names


def _image_names(group) -> list[str]:
    return [n for n in sorted(group) if group[n].ndim == 4 and group[n].shape[3] == 3]


def _stream(path: str, name: str) -> Iterator[bytes | np.ndarray]:
    """Images of an episode, one in memory at a time."""
    with _open(Path(path)) as file:
        yield from _pictures(file[name])


def _pictures(dataset: h5py.Dataset) -> Iterator[bytes | np.ndarray]:
    """Images one by one: raw `[h, w, 3]`, or encoded and padded with zeros."""
    for image in dataset:
        if dataset.ndim == 4:
            yield image
        else:
            yield np.asarray(image).tobytes().rstrip(b"\0")


def _size(dataset: h5py.Dataset) -> tuple[int, int]:
    """Height and width of the images of a camera."""
    if dataset.ndim == 4:
        return dataset.shape[1:3]
    with PILImage.open(io.BytesIO(next(_pictures(dataset)))) as image:
        return image.height, image.width


def _columns(group, names: Sequence[str]) -> np.ndarray:
    """Observations side by side, f32 `[T, p]`."""
    columns = [np.asarray(group[name], np.float32) for name in names]
    return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1)


def _width(dataset: h5py.Dataset) -> int:
    return int(np.prod(dataset.shape[1:]))


def _json(text) -> dict:
    return json.loads(_text(text))


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _optional_text(value) -> str | None:
    return None if value is None else _text(value)
