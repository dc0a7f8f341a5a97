"""Names that somebody typed: an unknown one is refused with the nearest that exist."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

_SHOWN = 20  # names of a folder that a message lists


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message about `name`: the nearest names, then all of them."""
    known = sorted(known)
    near = [repr(other) for other in difflib.get_close_matches(str(name), known)]
    if not near:
        return f"choose one of {known}."
    return f"did you mean {' or '.join(near)}? Choose one of {known}."


def check_keys(
    section: Mapping[str, Any],
    known: Iterable[str],
    place: str,
    *,
    required: Iterable[str] = (),
) -> None:
    """Refuses a section of a config with unknown keys, or without those it must have.

    Args:
        section: what was written.
        known: keys that it may have, the required ones among them.
        place: where the section stands, for the message.
        required: keys that it must have.

    Raises:
        ValueError: naming an unknown key and the nearest known ones, or what lacks.
    """
    known = list(known)
    for key in section:
        if key not in known:
            raise ValueError(
                f"Unknown key {key!r} in {place}; {did_you_mean(key, known)}"
            )
    missing = [key for key in required if key not in section]
    if missing:
        raise ValueError(f"{place} lacks {missing}; it may have {sorted(known)}.")


def choose_words(arg: str, *groups: Iterable[str]) -> list[str]:
    """The variant of a config: at most one word of each group.

    Args:
        arg: words with commas between them, in any order.
        groups: the words there are.

    Returns:
        The word of each group, "" for none.

    Raises:
        ValueError: for an unknown word, or two of a group.
    """
    words, groups = [word for word in arg.split(",") if word], tuple(map(tuple, groups))
    chosen = [[word for word in words if word in group] for group in groups]
    if sum(map(len, chosen)) < len(words) or max(map(len, chosen)) > 1:
        raise ValueError(
            f"Unknown variant {arg!r}; choose words, at most one of each of "
            f"{' and '.join(map(str, map(list, groups)))}."
        )
    return ["".join(found) for found in chosen]


def names_around(path) -> str:
    """A sentence on what the nearest folder above a missing local path holds."""
    above = next((folder for folder in path.parents if folder.exists()), None)
    if "://" in str(path) or above is None:
        return ""
    names = sorted(child.name for child in above.iterdir() if child.name[0] != ".")
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f" {above} holds {names[:_SHOWN]}{more}."
