"""Weights of other projects, put into a new model before its first step.

    train.load = dict(image_shared=dict(kind="resnet", path="weights/resnet18.pth"))

names a part of the model by the first component of its parameters' paths. A resumed run
has its own weights and does not read the file again.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from tqdm import tqdm

from vla_jax.models.resnet_weights import load_resnet
from vla_jax.names import check_keys, did_you_mean
from vla_jax.train.step import TrainState

# Kind of file -> `(module, path, entry=) -> {"params": ..., other collections}`.
LOADERS: dict[str, Callable[..., dict[str, Any]]] = {"resnet": load_resnet}


def load_pretrained(
    model: nn.Module,
    state: TrainState,
    sharding: TrainState,
    settings: Mapping[str, Mapping[str, Any]],
) -> TrainState:
    """Replaces parts of a new state by weights from files.

    Args:
        model: whose parts `settings` names.
        state: before the first step.
        sharding: of every leaf of the state.
        settings: `train.load`: part -> `kind`, `path` and optionally `entry`. An empty
            path leaves the part as it is.

    Raises:
        ValueError: an unknown part or kind, or a file that does not fit.
    """
    parts = dict(_parts(model))
    for name, fields in settings.items():
        place = f"train.load.{name}"
        required = ("kind", "path")
        check_keys(fields, (*required, "entry"), place, required=required)
        if name not in parts:
            raise ValueError(f"Unknown part in {place}; {did_you_mean(name, parts)}")
        kind = fields["kind"]
        if kind not in LOADERS:
            raise ValueError(
                f"Unknown kind {kind!r} in {place}; {did_you_mean(kind, LOADERS)}"
            )
        if not fields["path"]:
            continue
        entry = fields.get("entry", "")
        found = LOADERS[kind](parts[name], fields["path"], entry=entry)
        state = _replace(state, sharding, name, found)
        size = sum(leaf.size for leaf in jax.tree.leaves(found))
        tqdm.write(f"loaded {size:,} numbers of {name} from {fields['path']}")
    return state


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a model has as fields, by the names of their parameters."""
    for field in dataclasses.fields(model):
        value = getattr(model, field.name, None)
        if isinstance(value, nn.Module) and field.name != "parent":
            yield field.name, value
        if isinstance(value, Mapping):
            yield from ((f"{field.name}_{key}", part) for key, part in value.items())
        if isinstance(value, tuple):
            yield from ((f"{field.name}_{i}", part) for i, part in enumerate(value))


def _replace(
    state: TrainState, sharding: TrainState, name: str, found: Mapping[str, Any]
) -> TrainState:
    """Puts the arrays of one part in the place of those that were drawn."""

    def put(tree, places, arrays):
        return {**tree, name: jax.tree.map(jax.device_put, arrays, places[name])}

    for collection, arrays in found.items():
        if collection != "params":
            tree, places = state.collections, sharding.collections
            new = put(tree[collection], places[collection], arrays)
            state = state.replace(collections={**tree, collection: new})
            continue
        state = state.replace(params=put(state.params, sharding.params, arrays))
        if state.ema_params is not None:
            average = put(state.ema_params, sharding.ema_params, arrays)
            state = state.replace(ema_params=average)
    return state
