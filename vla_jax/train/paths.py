"""Names of parameters: the path of a leaf as a string, and patterns over such paths.

A leaf of `params` is called by its keys joined with "/" (`head/anchor/Dense_0/kernel`);
a leaf of another collection has the name of that collection in front
(`codebook/head/quantizer/table`). A pattern is a regular expression that must match
the path or a leading part of it that ends before a "/": `head/anchor` means everything
below the anchor head and nothing of `head/anchor_norm`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax


def leaf_path(keys: tuple[Any, ...]) -> str:
    """Joins the dictionary keys of a JAX key path; other containers leave no trace."""
    names = [str(key.key) for key in keys if isinstance(key, jax.tree_util.DictKey)]
    return "/".join(names)


def leaf_paths(tree: Any) -> list[str]:
    """The path of every leaf, in the order of `jax.tree.leaves`."""
    return [leaf_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]


def matches(pattern: str, path: str) -> bool:
    """Whether `pattern` names the leaf at `path` or a module above it."""
    return re.match(f"(?:{pattern})(?:/|$)", path) is not None


def require_matches(patterns: Iterable[str], paths: Iterable[str], field: str) -> None:
    """Refuses a pattern that names nothing.

    Args:
        patterns: regular expressions as the module docstring describes.
        paths: every path that they may name.
        field: where the patterns stand in the config, for the message.

    Raises:
        ValueError: with the pattern and the modules two levels down.
    """
    paths = list(paths)
    for pattern in patterns:
        try:
            found = any(matches(pattern, path) for path in paths)
        except re.error as error:
            raise ValueError(
                f"Pattern {pattern!r} in {field} is not a regular expression: {error}."
            ) from error
        if not found:
            modules = sorted({"/".join(path.split("/")[:2]) for path in paths})
            raise ValueError(
                f"Pattern {pattern!r} in {field} matches no parameter; "
                f"a pattern matches from the start of a path, and the modules are "
                f"{modules}."
            )


def pattern_pairs(table: Mapping[str, Any] | Iterable[tuple[str, Any]]):
    """Reads `{pattern: value}` or `((pattern, value), ...)` as a tuple of pairs.

    The second form is for patterns with a dot, which a `ConfigDict` refuses as keys.
    """
    pairs = table.items() if isinstance(table, Mapping) else table
    return tuple((pattern, value) for pattern, value in pairs)
