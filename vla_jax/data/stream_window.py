"""A few whole episodes in memory that look like an index of just these episodes.

What a stream has read goes into batches through the same functions that work on an
`Index`: windows, chunks, masks, normalization, labels, decoding.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_jax.data.build import describe_cameras
from vla_jax.data.index import Index
from vla_jax.data.rlds import RLDSFolder
from vla_jax.data.shard import ShardBuilder, read_json
from vla_jax.data.source import Episodes
from vla_jax.data.standardize import DatasetSpec, standardize_episode
from vla_jax.data.statistics import Statistics
from vla_jax.data.stream import StreamedEpisode
from vla_jax.data.text import Tokenizer


class Window(Index):
    """Episodes of one data set; has the attributes of an `Index` of them.

    Steps are numbered within the window, episodes as in the whole data set, which is
    why `first_step` is a mapping from episode number here. It cannot be pickled: it is
    made where it is used.

    Args:
        folder, spec: the data set.
        statistics: of its training split.
        counts: `episodes` and `steps` by split, as far as they are known.
        streamed: the episodes, at least one.

    Raises:
        ValueError: when an episode does not fit the spec, naming it.
    """

    def __init__(
        self,
        folder: RLDSFolder,
        spec: DatasetSpec,
        statistics: Mapping[str, Statistics],
        counts: Mapping[str, Mapping[str, int]],
        streamed: Sequence[StreamedEpisode],
    ):
        self.path = self.data_path = folder.path
        self.spec = spec
        self._arrays, self.languages = _standardize(spec, folder.path, streamed)
        numbers = np.array([episode.number for episode in streamed], np.int32)
        lengths = self._arrays["num_episode_steps"]
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        self._arrays |= {
            "first_step": starts,
            "split": np.zeros(len(numbers), np.int8),
            "shard": np.arange(len(numbers), dtype=np.int32),
            "episode": np.repeat(numbers, lengths),
        }
        content = {
            "num_steps": int(lengths.sum()),
            "num_episodes": len(numbers),
            "split_names": list(counts["episodes"]),
            "shards": [f"episode {number}" for number in numbers],
            "counts": counts,
            "corrupt": [],
            "statistics": {},
            **describe_cameras(folder, spec),
        }
        self._load(content)
        # No bound method of the window: nothing but its users may keep it in memory.
        self._file = [_Memory(episode.payload) for episode in streamed].__getitem__
        self.statistics = dict(statistics)
        self.episodes = Episodes(numbers, lengths.astype(np.int64), starts, starts)
        self.first_step = dict(zip(numbers.tolist(), starts.tolist(), strict=True))
        self._tokens: tuple[Any, tuple[np.ndarray, np.ndarray]] | None = None

    def __reduce__(self):
        raise TypeError(
            "A window cannot be pickled: pickle the source that it belongs to, which "
            "makes its windows anew."
        )

    @property
    def is_remote(self) -> bool:
        return False  # wherever its episodes came from

    def tokens(
        self, tokenizer: Tokenizer, length: int, truncate: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and mask, [languages, length], of the instructions; made once."""
        key = (tokenizer, length, truncate)
        if self._tokens is None or self._tokens[0] != key:
            encoded = tokenizer.encode(self.languages, length, truncate=truncate)
            self._tokens = key, encoded
        return self._tokens[1]

    def _array(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def _optional(self, name: str) -> np.ndarray | None:
        return self._arrays.get(name)


class _Memory:
    """Bytes with the interface of a file."""

    def __init__(self, payload: memoryview):
        self._payload = payload

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._payload[offset : offset + length])


def _standardize(
    spec: DatasetSpec, path: str, streamed: Sequence[StreamedEpisode]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of an index by file name, and the instructions."""
    builder = ShardBuilder(spec)
    for position, episode in enumerate(streamed):
        where = f"episode {episode.number} of {path}"
        try:
            standard = standardize_episode(spec, episode.raw)
            builder.append(episode.raw, standard, counted=False)
        except ValueError as error:
            raise ValueError(f"{error} ({where})") from error
        except Exception as error:  # of a user's standardize function
            error.add_note(f"in {where}")
            raise
        builder.records.append((position, 0, len(episode.payload)))
    arrays = builder.arrays([])
    episode_of_step = np.repeat(np.arange(len(streamed)), arrays["num_episode_steps"])
    languages = read_json(arrays.pop("languages"))
    if not np.any(arrays["success"] >= 0):
        del arrays["success"]
    for key, rows in arrays.items():
        if key.startswith(("image/", "depth/")):
            arrays[key] = np.insert(rows, 0, episode_of_step, axis=1)
    named = {key.replace("/", "_"): rows for key, rows in arrays.items()}
    return named | {"record": named["record"][:, 1:]}, languages
