"""LeRobot data sets, version 3: Parquet tables, and videos of many episodes each.

meta/info.json                                fps, features, path templates, splits
meta/tasks.parquet                            task_index, and the task as the index
meta/episodes/chunk-000/file-000.parquet      where each episode is
data/chunk-000/file-000.parquet               one row per step
videos/<camera>/chunk-000/file-000.mp4
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vla_jax.data.convert.layout import (
    EpisodeKey,
    Layout,
    SourceEpisode,
    require_language,
)
from vla_jax.data.convert.lerobot_depth import (
    PIXEL_FORMAT,
    decode_depth_image,
    is_depth,
    read_codes,
)
from vla_jax.data.convert.video import read_frames

_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def read_layout(
    source: str | Path,
    *,
    state: Sequence[str] = (),
    cameras: Sequence[str] = (),
    instruction: str | None = None,
) -> Layout:
    """Finds out what a data set holds.

    Args:
        source: its folder, which holds `meta/info.json`.
        state: columns that make up the proprio; `observation.state` when empty.
        cameras: features to convert, color or depth; all images and videos when empty.
        instruction: of every episode, whatever the data set says.

    Raises:
        ValueError: for another version, something that lacks, or a depth video whose
            pixels mean nobody knows what.
    """
    root = Path(source).expanduser().resolve()
    info = _read_info(root)
    features = info["features"]
    images = [
        key
        for key, feature in features.items()
        if feature.get("dtype") in ("image", "video")
    ]
    chosen = _choose(cameras or images, features, "--cameras", images)
    images = [key for key in chosen if not is_depth(features[key])]
    depths = {
        key: read_codes(features[key], key)
        if features[key]["dtype"] == "video"
        else None
        for key in chosen
        if is_depth(features[key])
    }
    numbers = [
        key
        for key, feature in features.items()
        if feature.get("dtype", "").startswith(("float", "int"))
    ]
    states = _choose(state or ("observation.state",), features, "--state", numbers)
    if "action" not in features:
        raise ValueError(f"{root} has no feature 'action'; it has {sorted(features)}.")
    rows = {row["episode_index"]: row for row in _read_episodes(root)}
    action, gripper = _action(features["action"], root)
    reader = _Reader(
        root=root,
        info=info,
        rows=rows,
        tasks={} if instruction else _read_tasks(root),
        cameras=tuple(images),
        depths=depths,
        states=tuple(states),
        instruction=instruction,
    )
    return Layout(
        description=f"converted from the LeRobot data set {root.name}",
        episodes=[
            EpisodeKey(str(reader.data_file(rows[i])), str(i), _split(info, i))
            for i in sorted(rows)
        ],
        image_size={key: _size(features[key], key) for key in images},
        state_dim=sum(int(np.prod(features[key]["shape"])) for key in states),
        action=action,
        gripper=gripper,
        control_hz=float(info["fps"]),
        read=reader.read,
        settings=(*images, *states, instruction or "", *map(str, depths.values())),
        depth_size={key: _size(features[key], key, channels=1) for key in depths},
    )


class _Reader:
    """Reads episodes; keeps the table that it read last."""

    def __init__(self, root, info, rows, tasks, cameras, depths, states, instruction):
        self._root, self._info, self._rows, self._tasks = root, info, rows, tasks
        self._cameras, self._depths, self._states = cameras, depths, states
        self._instruction = instruction
        self._table = functools.lru_cache(1)(_read_table)

    def data_file(self, row: Mapping) -> Path:
        """The file with the steps of an episode."""
        return self._root / self._info.get("data_path", _DATA_PATH).format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )

    def read(self, key: EpisodeKey) -> SourceEpisode:
        number = int(key.name)
        row = self._rows[number]
        table = self._table(Path(key.file))
        episode = table.filter(pc.equal(table["episode_index"], number))
        if len(episode) != row["length"]:
            raise ValueError(
                f"{key.file} has {len(episode)} steps of it, meta/episodes says "
                f"{row['length']}"
            )
        episode = episode.sort_by("frame_index")
        done = "next.done" in episode.column_names
        reward = "next.reward" in episode.column_names
        times = _numbers(episode, "timestamp")[:, 0]
        return SourceEpisode(
            images={c: self._images(c, row, episode, times) for c in self._cameras},
            state=np.concatenate([_numbers(episode, s) for s in self._states], axis=1),
            action=_numbers(episode, "action"),
            language=self._language(episode, key),
            reward=_numbers(episode, "next.reward")[:, 0]
            if reward
            else np.zeros(len(episode)),
            is_terminal=bool(episode["next.done"][-1].as_py()) if done else True,
            depth={d: self._depth(d, row, episode, times) for d in self._depths},
        )

    def _language(self, episode: pa.Table, key: EpisodeKey) -> list[str]:
        if self._instruction:
            return [self._instruction] * len(episode)
        tasks = episode["task_index"].to_pylist()
        return [
            require_language(self._tasks.get(t), f"Task {t} of {key}") for t in tasks
        ]

    def _images(self, camera, row, episode, times) -> Iterator[bytes | np.ndarray]:
        if self._info["features"][camera]["dtype"] == "image":
            return self._cells(camera, episode)
        return self._frames(camera, row, times, "rgb24")

    def _depth(self, camera, row, episode, times) -> Iterator[np.ndarray]:
        codes = self._depths[camera]
        if codes is None:
            feature = self._info["features"][camera]
            for data in self._cells(camera, episode):
                yield decode_depth_image(data, feature)
            return
        for frame in self._frames(camera, row, times, PIXEL_FORMAT):
            yield codes.millimetres(frame)

    def _cells(self, camera: str, episode: pa.Table) -> Iterator[bytes]:
        """Images that lie in the table itself, or beside it."""
        for cell in episode[camera].to_pylist():
            yield cell["bytes"] or (self._root / cell["path"]).read_bytes()

    def _frames(self, camera, row, times, pixels: str) -> Iterator[np.ndarray]:
        path = self._root / self._info.get("video_path", _VIDEO_PATH).format(
            video_key=camera,
            chunk_index=row[f"videos/{camera}/chunk_index"],
            file_index=row[f"videos/{camera}/file_index"],
        )
        start = row[f"videos/{camera}/from_timestamp"]
        return read_frames(path, start + times, 0.5 / self._info["fps"], pixels)


def _read_info(root: Path) -> dict:
    try:
        info = json.loads((root / "meta" / "info.json").read_text())
    except FileNotFoundError as error:
        raise ValueError(
            f"{root} is no LeRobot data set: no meta/info.json."
        ) from error
    version = str(info.get("codebase_version", "unknown"))
    if not version.startswith("v3"):
        raise ValueError(
            f"{root} is of LeRobot's version {version}; this converter reads v3.0. "
            + _upgrade(root, version)
        )
    missing = sorted({"fps", "features"} - set(info))
    if missing:
        raise ValueError(f"{root}/meta/info.json lacks {missing}.")
    return info


def _read_episodes(root: Path) -> list[dict]:
    """Rows of meta/episodes, without the statistics of each episode."""
    files = sorted((root / "meta" / "episodes").rglob("*.parquet"))
    if not files:
        raise ValueError(f"{root} has no meta/episodes/chunk-*/file-*.parquet.")
    rows = []
    for file in files:
        names = pq.read_schema(file).names
        wanted = [name for name in names if not name.startswith("stats/")]
        rows += _read_table(file, wanted).to_pylist()
    return rows


def _read_tasks(root: Path) -> dict[int, str]:
    """Task by number; its column is the index of a data frame, of whatever name."""
    table = _read_table(root / "meta" / "tasks.parquet")
    names = [name for name in table.column_names if name != "task_index"]
    named = [n for n in ("task", "__index_level_0__") if n in names] or names[:1]
    if "task_index" not in table.column_names or not named:
        raise ValueError(
            f"{root}/meta/tasks.parquet has the columns {table.column_names}; expected "
            "'task_index' and 'task'."
        )
    numbers = table["task_index"].to_pylist()
    return dict(zip(numbers, table[named[0]].to_pylist(), strict=True))


def _read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return pq.ParquetFile(path).read(columns)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers or lists of numbers, f64 `[T, width]`."""
    rows = np.asarray(table[name].to_pylist(), np.float64)
    return rows.reshape(len(table), -1)


def _action(feature: Mapping, root: Path) -> tuple:
    """Kinds of the action, and what the gripper is when closed and open.

    LeRobot does not say what an action is; most are joint positions. A last dimension
    called gripper goes from its smallest value, taken as closed, to its largest.
    """
    width = int(np.prod(feature["shape"]))
    names = feature.get("names") or []
    if isinstance(names, Mapping):
        names = next(iter(names.values())) if len(names) == 1 else list(names)
    stats = root / "meta" / "stats.json"
    named = isinstance(names, list) and names and "gripper" in str(names[-1]).lower()
    if not named or not stats.exists():
        return ("absolute",) * width, None
    action = json.loads(stats.read_text()).get("action", {})
    low, high = (float(np.ravel(action.get(k, np.nan))[-1]) for k in ("min", "max"))
    if not low < high:
        return ("absolute",) * width, None
    return ("absolute",) * (width - 1) + ("gripper",), (low, high)


def _choose(wanted, features: Mapping, flag: str, choice: Sequence[str]) -> list[str]:
    missing = [key for key in wanted if key not in features]
    if missing or not wanted:
        raise ValueError(
            f"The data set has no feature {missing or 'chosen'}; choose with {flag} "
            f"among {sorted(choice)}."
        )
    return list(wanted)


def _upgrade(root: Path, version: str) -> str:
    """How to bring a data set to version 3, with LeRobot's own programs."""
    arguments = (
        f"--repo-id={root.parent.name}/{root.name} --root={root} --push-to-hub=false"
    )
    before = (
        ""
        if version.startswith("v2.1")
        else "Bring it to v2.1 first, with `lerobot.datasets.v21."
        "convert_dataset_v20_to_v21` of LeRobot 0.3.3. "
    )
    return (
        f"{before}LeRobot's own program takes v2.1 there, in place. Since 0.5.1 it is "
        f"`python -m lerobot.scripts.convert_dataset_v21_to_v30 {arguments}`; from "
        "0.4.0 to 0.5.0 `lerobot.datasets.v30.convert_dataset_v21_to_v30` with --root "
        f"the folder above, {root.parents[1]}."
    )


def _size(feature: Mapping, key: str, channels: int = 3) -> tuple[int, int]:
    """Height and width; the names tell where the channels are, last unless said."""
    shape, names = list(feature["shape"]), list(feature.get("names") or [])
    if len(shape) == 2 and channels == 1:
        return tuple(shape)
    if len(shape) != 3:
        raise ValueError(
            f"{key} has the shape {shape}; expected height, width, {channels}."
        )
    named = names[:1] in (["channels"], ["channel"])
    first = named or (shape[0] in (1, 3) and shape[2] not in (1, 3))
    return tuple(shape[1:] if first else shape[:2])


def _split(info: Mapping, episode: int) -> str:
    """The split of an episode; `splits` has ranges such as "0:50"."""
    for name, episodes in (info.get("splits") or {}).items():
        start, _, stop = str(episodes).partition(":")
        inside = (
            start.isdigit() and stop.isdigit() and int(start) <= episode < int(stop)
        )
        if inside and name in _SPLITS:
            return _SPLITS[name]
    return "train"
