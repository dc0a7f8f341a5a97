"""Statistics of a data set that is read in passing: found, or measured in one pass."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from vla_jax.data.build import fingerprint, why_rebuild
from vla_jax.data.index import place_index
from vla_jax.data.standardize import standardize_episode
from vla_jax.data.statistics import Statistics, Streaming
from vla_jax.data.stream_window import Window

if TYPE_CHECKING:
    from vla_jax.data.stream_source import Stream  # which imports this file

_KEYS = ("action", "proprio")


def read_statistics(path: str | os.PathLike) -> dict[str, Statistics]:
    """Reads statistics from the folder of an index, or a JSON file with the keys
    "action" and "proprio", by themselves or below "statistics".

    Raises:
        ValueError: a file without them.
    """
    path = Path(path).expanduser()
    file = path / "index.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text())
        content = content.get("statistics", content)
        return {key: Statistics.from_json(content[key]) for key in _KEYS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file} has no statistics of 'action' and 'proprio' ({error!r}). Name an "
            "index, a file of that form, or none to compute them from the data."
        ) from error


def find_statistics(
    stream: "Stream", path: str
) -> tuple[dict[str, Statistics], int | None]:
    """Statistics from where they are; else from one pass over the data, which is kept.

    Args:
        stream: the data set.
        path: an index or a file that the user has named; empty for none.

    Returns:
        The statistics, and how many training episodes can be read, where that is known.
    """
    if path:
        return read_statistics(path), None
    wanted = fingerprint(stream.folder, stream.spec)
    place = place_index(stream.folder, stream.spec, None, wanted)
    if not why_rebuild(place, wanted):
        counts = json.loads((place / "index.json").read_text())["counts"]
        return read_statistics(place), counts["episodes"]["train"]
    file = place.with_name(f"{place.name}.statistics.json")
    try:
        content = json.loads(file.read_text())
        if content["fingerprint"] == wanted:
            return read_statistics(file), content["episodes"]
    except (OSError, ValueError, KeyError):
        pass  # there is none yet, or none that can be used
    print(f"Computing the statistics {file}: one pass over the data.")
    statistics, episodes = _measure(stream)
    content = {key: value.to_json() for key, value in statistics.items()}
    found = {"fingerprint": wanted, "episodes": episodes, "statistics": content}
    text = json.dumps(found, indent=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}.writing")
    temporary.write_text(text + "\n")
    os.replace(temporary, file)
    return statistics, episodes


def _measure(stream: "Stream") -> tuple[dict[str, Statistics], int]:
    """Statistics of the training split, shard by shard as an index counts them, and the
    number of its episodes."""
    totals: dict[str, Streaming] = {}
    episodes, count = 0, stream.counts["episodes"]["train"]
    with tqdm(total=count, unit="episode", desc="statistics") as bar:
        for part in stream.parts("train", 0, 1):
            shard: dict[str, Streaming] = {}
            for episode in stream.read([part]):
                standard = standardize_episode(stream.spec, episode.raw)
                for key in _KEYS:
                    rows = getattr(standard, key)
                    shard.setdefault(key, Streaming(rows.shape[1])).update(rows)
                episodes += 1
                bar.update()
            for key, streaming in shard.items():
                dim = len(streaming.finish().mean)
                totals.setdefault(key, Streaming(dim)).merge(streaming)
    if not totals:
        raise ValueError(
            f"Data set {stream.spec.name!r} at {stream.folder.path} has no training "
            f"episode that can be read; its splits have {stream.counts['episodes']}."
        )
    finished = {key: streaming.finish() for key, streaming in totals.items()}
    return finished, episodes


def check_widths(window: Window, path: str) -> None:
    """Refuses statistics of another data set."""
    for key, statistics in window.statistics.items():
        width = getattr(window, key).shape[1]
        if len(statistics.mean) != width:
            raise ValueError(
                f"The statistics {path or 'found'} of data set {window.spec.name!r} "
                f"have {len(statistics.mean)} dimensions of {key}, but its episodes "
                f"have {width}."
            )
