"""Starting a run from the weights of another: part by part, with a report.

Only names and shapes have to agree, not the configs: what the checkpoint lacks or has
in another shape stays as it was drawn, and is said so.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from vla_jax.models.layers import SCANNED
from vla_jax.models.lora import LORA, make_lora, merge
from vla_jax.train.checkpoint import find_folder, restore_variables
from vla_jax.train.paths import leaf_path, leaf_paths, matches, require_matches
from vla_jax.train.step import TrainState

_SHOWN = 12  # names of a kind that a report lists


class Report(NamedTuple):
    """Paths by what became of them, as `vla_jax.train.paths` names them.

    Attributes:
        loaded: taken from the checkpoint.
        kept: not asked for by the patterns.
        missing: asked for, and not in the checkpoint.
        misshaped: "path: shape there, shape here".
        unused: in the checkpoint alone.
    """

    loaded: list[str]
    kept: list[str]
    missing: list[str]
    misshaped: list[str]
    unused: list[str]

    def __str__(self) -> str:
        words = dict(
            loaded="loaded",
            kept="kept as drawn, as the patterns say",
            missing="kept as drawn, not in the checkpoint",
            misshaped="kept as drawn, of another shape",
            unused="in the checkpoint alone",
        )
        lines = []
        for kind, names in self._asdict().items():
            if not names:
                continue
            # What went wrong is listed one by one, the rest by module.
            shown = names if kind == "misshaped" else _modules(names)
            more = f", and {len(shown) - _SHOWN} more" * (len(shown) > _SHOWN)
            lines.append(
                f"  {len(names)} {words[kind]}: {', '.join(shown[:_SHOWN])}{more}"
            )
        return "\n".join(lines)


def load_initial(
    state: TrainState, sharding: TrainState, settings: Mapping[str, Any]
) -> tuple[TrainState, Report]:
    """Replaces what a checkpoint has of the parameters and collections of a new state.

    Scanned and single layers are converted, and adapters of the checkpoint are merged
    where this model has none.

    Args:
        state: freshly drawn.
        sharding: of `state`.
        settings: the `train` section: `initial_checkpoint`, `initial_step`,
            `initial_ema`, `initial_include`, `initial_exclude` and `initial_rename`.

    Returns:
        The state, its average again at the parameters, and what was done.

    Raises:
        ValueError: no such checkpoint, a damaged file, a pattern that matches nothing,
            or when nothing at all could be loaded.
    """
    tree = {**state.params, **state.collections}
    places = {**sharding.params, **sharding.collections}
    include, exclude = settings["initial_include"], settings["initial_exclude"]
    for name, patterns in (("include", include), ("exclude", exclude)):
        require_matches(patterns, leaf_paths(tree), f"train.initial_{name}")
    source = _read(settings, has_lora=LORA in state.params)
    report, used = Report([], [], [], [], []), set()

    def replace(keys, leaf, place):
        path = leaf_path(keys)
        wanted = not include or any(matches(pattern, path) for pattern in include)
        if not wanted or any(matches(pattern, path) for pattern in exclude):
            report.kept.append(path)
            return leaf
        value, names = _find(source, path, leaf.shape)
        used.update(names)
        if value is None:
            report.missing.append(path)
            return leaf
        if value.shape != leaf.shape:
            report.misshaped.append(f"{path}: {value.shape} there, {leaf.shape} here")
            return leaf
        report.loaded.append(path)
        value = value.astype(leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, place, lambda i: value[i])

    tree = jax.tree_util.tree_map_with_path(replace, tree, places)
    report.unused.extend(sorted(set(source) - used))
    if not report.loaded:
        raise ValueError(
            f"Nothing of train.initial_checkpoint={settings['initial_checkpoint']} "
            f"fits this model:\n{report}\nThe model has {_modules(leaf_paths(tree))}; "
            "train.initial_rename maps names."
        )
    params = {key: tree[key] for key in state.params}
    ema_params = state.ema_params
    if ema_params is not None:
        copy = jax.jit(
            lambda params: jax.tree.map(jnp.copy, params),
            out_shardings=sharding.ema_params,
        )
        ema_params = copy(params)
    state = state.replace(
        params=params,
        collections={key: tree[key] for key in state.collections},
        ema_params=ema_params,
    )
    return state, report


def _read(settings: Mapping[str, Any], *, has_lora: bool) -> dict[str, np.ndarray]:
    """Every array of the checkpoint by its new name."""
    folder = find_folder(settings["initial_checkpoint"])
    variables = restore_variables(
        folder, settings["initial_step"], ema=settings["initial_ema"]
    )
    params = variables.pop("params")
    if LORA in params and not has_lora:
        config = json.loads((folder / "config.json").read_text())
        params = merge(make_lora(config["model"]["lora"]), params)
    flat = flatten_dict({**params, **variables}, sep="/")
    require_matches(
        [pattern for pattern, _ in settings["initial_rename"]],
        flat,
        "train.initial_rename",
    )
    renamed = {
        _rename(path, settings["initial_rename"]): np.asarray(value)
        for path, value in flat.items()
    }
    if len(renamed) < len(flat):
        raise ValueError("train.initial_rename gives several arrays the same name.")
    return renamed


def _rename(path: str, pairs: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in pairs:
        if matches(pattern, path):
            return re.sub(rf"^(?:{pattern})(?=/|$)", replacement, path).lstrip("/")
    return path


def _find(
    source: Mapping[str, np.ndarray], path: str, shape: tuple[int, ...]
) -> tuple[np.ndarray | None, list[str]]:
    """The array for `path`, from stacked or single layers, and what it is made of."""
    if path in source:
        return source[path], [path]
    parts = path.split("/")
    if SCANNED in parts:
        at = parts.index(SCANNED)
        names = [
            "/".join([*parts[:at], f"layer_{number}", *parts[at + 1 :]])
            for number in range(shape[0])
        ]
        if all(name in source for name in names):
            layers = [source[name] for name in names]
            if all(layer.shape == layers[0].shape for layer in layers):
                return np.stack(layers), names
    for at, part in enumerate(parts):
        if number := re.fullmatch(r"layer_(\d+)", part):
            name = "/".join([*parts[:at], SCANNED, *parts[at + 1 :]])
            if name in source and int(number[1]) < len(source[name]):
                return source[name][int(number[1])], [name]
    return None, []


def _modules(paths: Iterable[str]) -> list[str]:
    return sorted({"/".join(path.split("/")[:2]) for path in paths})
