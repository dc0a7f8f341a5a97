"""What a check says, what all of them say together, and the episodes they look at."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from vla_jax.data.index import Index

LEVELS = ("error", "warning", "skipped", "ok")  # as they are listed


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of a check; one that finds several problems has several.

    Attributes:
        level: "error" when training on the data makes no sense before it is fixed,
            "warning" for what a person should look at, "ok", or "skipped" when the
            data lack what the check needs.
        check: a few words, such as "gripper range".
        sentence: what was found.
        remedy: what to do about it; empty where there is nothing to do.
        episodes: numbers of episodes that show it, a few at most.
    """

    level: str
    check: str
    sentence: str
    remedy: str = ""
    episodes: tuple[int, ...] = ()

    def __str__(self) -> str:
        level = "ERROR" if self.level == "error" else self.level
        return f"{level:<8} {self.check}: {self.sentence} {self.remedy}".rstrip()


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        name: of the data set.
        data_path: where it lies.
        scope: which episodes were looked at, "all 12 episodes".
        table: sizes, ranges and instructions as text.
        findings: errors first.
    """

    name: str
    data_path: str
    scope: str
    table: str
    findings: tuple[Finding, ...]

    def count(self, level: str) -> int:
        return sum(finding.level == level for finding in self.findings)

    @property
    def summary(self) -> str:
        """How many findings of each level there are."""
        plural = {"error": "errors", "warning": "warnings"}
        counts = [(level, self.count(level)) for level in LEVELS]
        return ", ".join(
            f"{n} {level if n == 1 else plural.get(level, level)}"
            for level, n in counts
        )

    def __str__(self) -> str:
        lines = [self.table, f"Checks of {self.scope}:"]
        return "\n".join([*lines, *map(str, self.findings), self.summary])

    def to_json(self) -> dict:
        return {
            "name": self.name,
            "data_path": self.data_path,
            "scope": self.scope,
            "counts": {level: self.count(level) for level in LEVELS},
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }


@dataclasses.dataclass(frozen=True)
class Sample:
    """The episodes that the slower checks look at.

    Attributes:
        index: of the data set.
        episodes: int `[s]`, ascending.
        progress: show progress bars.
    """

    index: Index
    episodes: np.ndarray
    progress: bool = False

    @classmethod
    def draw(cls, index: Index, size: int, *, progress: bool = False) -> "Sample":
        """Draws `size` episodes, the same every time; all of them for 0."""
        total = index.num_episodes
        if not 0 < size < total:
            return cls(index, np.arange(total), progress)
        chosen = np.random.default_rng(0).choice(total, size, replace=False)
        return cls(index, np.sort(chosen), progress)

    @property
    def scope(self) -> str:
        total = self.index.num_episodes
        if len(self.episodes) == total:
            return f"all {total:,} episodes"
        return f"{len(self.episodes):,} of {total:,} episodes, drawn at random"

    def steps(self, episode: int) -> slice:
        """Where the steps of an episode lie in the arrays of the index."""
        first = int(self.index.first_step[episode])
        return slice(first, first + int(self.index.num_episode_steps[episode]))

    def track(self, items: Iterable, what: str) -> Iterable:
        """The same items, with a progress bar."""
        return tqdm(items, desc=what, disable=not self.progress, leave=False)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first, then warnings; otherwise in the order of the checks."""
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


def some(episodes: Iterable[int], most: int = 5) -> tuple[int, ...]:
    """The first few episodes, as plain numbers."""
    return tuple(int(episode) for episode in list(episodes)[:most])
