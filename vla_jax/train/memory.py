"""What a run takes on each device, told before its first step."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from vla_jax.train.paths import leaf_path
from vla_jax.train.step import TrainState


def bytes_per_device(tree: Any, sharding: Any) -> int:
    """Memory that the leaves of `tree` take on one device under `sharding`."""
    sizes = jax.tree.map(
        lambda leaf, place: (
            math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        ),
        tree,
        sharding,
    )
    return sum(jax.tree.leaves(sizes))


def batch_bytes_per_device(batch: Any) -> int:
    """Memory that one batch takes on a device; its arrays know where they lie."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(batch)
    )


def describe(
    mesh: Mesh,
    state: TrainState,
    sharding: TrainState,
    frozen: Callable[[str], bool],
    batch: Any,
) -> str:
    """The size of a run: parameters, memory by part and device, and the mesh.

    Args:
        mesh: the devices.
        state: shapes of the train state.
        sharding: of `state`.
        frozen: whether the parameter at a path is frozen.
        batch: one batch, on the devices.
    """
    sizes = [
        (math.prod(leaf.shape), frozen(leaf_path(keys)))
        for keys, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    ]
    total = sum(size for size, _ in sizes)
    still = sum(size for size, is_frozen in sizes if is_frozen)
    parts = {
        "parameters": (state.params, sharding.params),
        "optimizer": (state.opt_state, sharding.opt_state),
        "average": (state.ema_params, sharding.ema_params),
        "collections": (state.collections, sharding.collections),
    }
    memory = {name: bytes_per_device(*part) for name, part in parts.items()}
    state_memory = sum(memory.values())
    memory["batch"] = batch_bytes_per_device(batch)
    named = ", ".join(f"{k} {v / 2**20:,.1f}" for k, v in memory.items() if v)
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    processes = jax.process_count()
    hosts = f" in {processes} processes" if processes > 1 else ""
    return (
        f"{total:,} parameters, {still:,} of them frozen; state "
        f"{state_memory / 2**20:,.1f} MiB per device; mesh {axes} of "
        f"{mesh.devices.flat[0].platform} devices{hosts}; MiB per device before "
        f"activations: {named}"
    )
