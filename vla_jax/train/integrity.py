"""Tells an intact checkpoint from one whose files were damaged after it was written.

The listing holds the size and CRC-32 of every file. It is written into the unfinished
folder, so that a step never appears without it.
"""

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

_LISTING = "files.json"
_BLOCK = 1 << 20  # bytes read at once


def write_listing(folder: Path) -> None:
    """Lists the files in the items of a step and forces them to the disk."""
    files = {}
    for path in sorted(folder.rglob("*")):
        # Orbax still rewrites the files of the top level.
        if path.is_file() and path.parent != folder:
            name = path.relative_to(folder).as_posix()
            files[name] = _fingerprint(path, sync=True)
    (folder / _LISTING).write_text(json.dumps(files))


def find_damage(folder: Path, items: Iterable[str] | None = None) -> str | None:
    """Says what is wrong with the files of a step; None when they are intact.

    Args:
        folder: of the step.
        items: subfolders to check, all of them by default.
    """
    listing = folder / _LISTING
    try:
        files = json.loads(listing.read_text())
    except (OSError, ValueError):
        return f"{listing} is missing or unreadable"
    for name, (size, crc) in files.items():
        path = folder / name
        if items is not None and name.split("/")[0] not in items:
            continue
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != size:
            return f"{path} has {path.stat().st_size} bytes instead of {size}"
        if _fingerprint(path)[1] != crc:
            return f"the content of {path} has changed since it was written"
    return None


def _fingerprint(path: Path, *, sync: bool = False) -> tuple[int, int]:
    size = crc = 0
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while block := file.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc
