"""What results in a folder depend on, so that nobody mixes them with others."""

from collections.abc import Mapping
from pathlib import Path


def require_same_settings(folder: Path, found: Mapping, wanted: Mapping) -> None:
    """Refuses a folder whose results were made with other settings.

    Args:
        folder: for the message.
        found: settings that were noted there, from JSON.
        wanted: the present ones, JSON values.

    Raises:
        ValueError: with every setting that differs and both of its values.
    """
    differing = [
        f"{key} (there {found.get(key)!r}, now {wanted.get(key)!r})"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if differing:
        raise ValueError(
            f"{folder} was made with other settings: {', '.join(differing)}. Choose "
            "another --out, or delete it."
        )
