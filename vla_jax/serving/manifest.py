"""Which files a bundle has and what is in them, so that a changed one is named."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from vla_jax.serving.tensors import read_tensors

MANIFEST = "files.json"
_BLOCK = 1 << 20  # bytes read at once
_SHOWN = 5  # differing arrays that a message names


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Lists size and SHA-256 of these files, and the arrays of those that have some."""
    files = {}
    for name in sorted(names):
        path = folder / name
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        if path.suffix == ".safetensors":
            files[name]["tensors"] = describe_tensors(read_tensors(path))
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n")


def check_manifest(folder: Path) -> dict[str, str]:
    """Compares all files with the list.

    Returns:
        the SHA-256 of every file.

    Raises:
        ValueError: a file is missing, cut short or changed; for a file of arrays with
            the arrays that differ.
    """
    path = folder / MANIFEST
    if not path.is_file():
        found = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else "none"
        raise ValueError(
            f"{folder} is no policy bundle: it has no {MANIFEST}; files: {found}. "
            "launch/export.py makes one from a checkpoint."
        )
    try:
        files = json.loads(path.read_text())["files"]
        hashes = {name: entry["sha256"] for name, entry in files.items()}
        sizes = {name: entry["bytes"] for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); export the bundle again."
        ) from error
    for name in files:
        file = folder / name
        if not file.is_file():
            raise ValueError(f"The bundle {folder} lacks its file {name}.")
        if file.stat().st_size == sizes[name] and sha256(file) == hashes[name]:
            continue
        raise ValueError(
            f"{file} is not the file that was exported"
            f"{_difference(file, files[name])}. Copy it again, or export again."
        )
    return hashes


def describe_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, list]:
    """Type, shape and CRC-32 of every array."""
    return {
        name: [str(array.dtype), list(array.shape), zlib.crc32(array.tobytes())]
        for name, array in sorted(tensors.items())
    }


def compare_tensors(expected: Mapping[str, list], found: Mapping[str, list]) -> str:
    """What differs between two descriptions, in words; empty when nothing does."""
    lines = []
    for name in sorted(expected.keys() | found.keys()):
        was, now = expected.get(name), found.get(name)
        if was == now:
            continue
        if was is None or now is None:
            lines.append(f"{name} {'is new' if was is None else 'is missing'}")
        elif was[:2] != now[:2]:
            lines.append(f"{name} is {now[0]} {now[1]}, expected {was[0]} {was[1]}")
        else:
            lines.append(f"{name} has other values")
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _difference(file: Path, entry: Mapping) -> str:
    """What is known of how a file differs, as the end of a sentence."""
    size = file.stat().st_size
    if size != entry["bytes"]:
        size = f": it has {size} bytes instead of {entry['bytes']}"
    else:
        size = ": its content has changed"
    if "tensors" not in entry:
        return size
    try:
        words = compare_tensors(entry["tensors"], describe_tensors(read_tensors(file)))
    except ValueError as error:
        return f"{size}; {str(error).removesuffix('.')}"
    return f"{size}; {words}" if words else size
