"""Instructions of an episode, from one field or several, as text or as code points."""

import numpy as np

from vla_jax.data.rlds import RawEpisode

INSTRUCTION = "steps/language_instruction"
NATURAL = "steps/observation/natural_language_instruction"


def instructions(raw: RawEpisode, *keys: str) -> list:
    """All that several fields say, as alternatives of which any can be drawn.

    Args:
        raw: the episode.
        keys: text features, of the steps or of the whole episode.

    Returns:
        Alternatives for the episode if all steps agree, else those of each step; in
        both cases without repetitions and empty strings. Names such as `open_drawer`
        are written as words.
    """
    fields = [_strings(raw, key) for key in keys]
    return _merged(
        [[_words(text) for text in step] for step in zip(*fields, strict=True)]
    )


def spelled_instructions(code_points: np.ndarray) -> list:
    """Instructions stored as Unicode numbers `[T, l]`, filled up with zeros."""
    rows = code_points.astype("<u4")
    texts = [row.tobytes().decode("utf-32-le", errors="replace") for row in rows]
    return _merged([[text.partition("\0")[0].strip()] for text in texts])


def _merged(steps: list[list[str]]) -> list:
    distinct = [list(dict.fromkeys(filter(None, step))) for step in steps]
    return distinct[0] if all(s == distinct[0] for s in distinct) else distinct


def _words(text: bytes) -> str:
    return text.decode("utf-8", errors="replace").replace("_", " ").strip()


def _strings(raw: RawEpisode, key: str) -> list[bytes]:
    if key.startswith("steps/"):
        return raw.text[key]
    return [raw.metadata[key]] * raw.num_steps
