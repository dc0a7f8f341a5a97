"""Checks of the instructions: coverage, encoding, near duplicates, placeholders."""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from vla_jax.data.checks.finding import Finding, Sample, some
from vla_jax.data.index import Index

_BLOCK = 65536  # steps in memory at a time
_PLACEHOLDERS = {"dummy", "n/a", "na", "nan", "none", "null", "task", "test", "todo"}


def check_language(sample: Sample) -> Iterator[Finding]:
    """All checks of this file."""
    index = sample.index
    yield _check_coverage(index)
    texts = list(_check_texts(index))
    yield from texts
    if not texts:
        counts = count_instructions(index)
        most = counts.most_common(1)
        top = f", the most common in {most[0][1]:,} episodes" if most else ""
        yield Finding(
            "ok",
            "instructions",
            f"{len(index.languages):,} different instructions{top}.",
        )


def count_instructions(index: Index) -> Counter[str]:
    """Episodes that begin with each instruction; alternatives count each."""
    counts: Counter[str] = Counter()
    ids = np.asarray(index.language[index.first_step])
    for number, count in zip(*np.unique(ids, return_counts=True), strict=True):
        if number >= 0:
            counts[index.languages[number]] = int(count)
    return counts


def _check_coverage(index: Index) -> Finding:
    without, episodes = 0, []
    for start in range(0, index.num_steps, _BLOCK):
        silent = (index.language[start : start + _BLOCK] < 0).all(1)
        without += int(silent.sum())
        if len(episodes) < 5 and silent.any():
            numbers = index.episode[start : start + _BLOCK][silent]
            episodes += np.unique(numbers)[:5].tolist()
    if not without:
        return Finding("ok", "language", "Every step has an instruction.")
    share = without / index.num_steps
    return Finding(
        "warning",
        "language",
        f"{_percent(share)} of the steps have no instruction.",
        "A policy that is told what to do needs one: see `language` in the "
        "standardize function.",
        some(episodes),
    )


def _check_texts(index: Index) -> Iterator[Finding]:
    unclear = [text for text in index.languages if "\ufffd" in text]
    if unclear:
        yield Finding(
            "warning",
            "instructions",
            f"{len(unclear)} instructions are not valid UTF-8, such as {unclear[0]!r}.",
            "Write them as UTF-8.",
        )
    empty = [t for t in index.languages if t.strip().lower() in _PLACEHOLDERS]
    if empty:
        yield Finding(
            "warning",
            "instructions",
            f"{len(empty)} instructions say nothing, such as {empty[0]!r}.",
            "Return an empty list for `language` where there is no instruction.",
        )
    plain: dict[str, str] = {}
    alike = []
    for text in index.languages:
        other = plain.setdefault(re.sub(r"\W+", " ", text).strip().lower(), text)
        if other != text:
            alike.append((other, text))
    if alike:
        one, two = alike[0]
        yield Finding(
            "warning",
            "instructions",
            f"{len(alike)} instructions differ from another only in case, spaces or "
            f"punctuation, such as {one!r} and {two!r}.",
            "Write them alike in the standardize function.",
        )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"
