"""Where arrays live: one mesh, and rules from parameter path to `PartitionSpec`.

The mesh always has the axes (replica, data, fsdp, tensor). A batch is split over the
first three. A large parameter is split over `fsdp` along its largest divisible axis
unless a rule says otherwise; its moments and its average lie like the parameter.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vla_jax.names import did_you_mean
from vla_jax.train.paths import leaf_path, leaf_paths, matches, require_matches
from vla_jax.train.step import TrainState

AXES = ("replica", "data", "fsdp", "tensor")
BATCH_AXES = ("replica", "data", "fsdp")
# Smaller arrays are copied to every device: splitting them saves little memory and
# costs a message per use.
MIN_FSDP_SIZE = 2**16

Rules = Iterable[tuple[str, Sequence[str | Sequence[str] | None]]]


def make_mesh(
    axes: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None
) -> Mesh:
    """Arranges the devices in a mesh.

    Args:
        axes: size per axis; one may be -1 and takes the devices that are left. Left out
            axes are 1, and `data` is -1 unless another axis is.
        devices: the devices to use, all of them by default.

    Raises:
        ValueError: for an unknown axis or sizes that do not multiply to the devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    axes = dict(axes or {})
    unknown = sorted(set(axes) - set(AXES))
    if unknown:
        raise ValueError(
            f"Unknown mesh axis {unknown[0]!r}; {did_you_mean(unknown[0], AXES)}"
        )
    if "data" not in axes:
        axes["data"] = 1 if -1 in axes.values() else -1
    sizes = [axes.get(axis, 1) for axis in AXES]
    known = math.prod(size for size in sizes if size != -1)
    fits = known > 0 and len(devices) % known == 0
    if -1 in sizes and sizes.count(-1) == 1 and fits:
        sizes[sizes.index(-1)] = len(devices) // known
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        wanted = dict(zip(AXES, sizes, strict=True))
        raise ValueError(
            f"Mesh {wanted} does not fit {len(devices)} devices: the sizes must "
            "multiply to that number, and at most one of them may be -1."
        )
    # Explicit axes, JAX's default, refuse contractions over a split axis.
    return jax.make_mesh(
        sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
    )


def batch_sharding(mesh: Mesh, batch_size: int, accumulate: int = 1) -> NamedSharding:
    """Splits the leading axis of every array of a batch.

    Raises:
        ValueError: when `batch_size` does not divide by the devices that share it, or
            then by the micro-batches that each device works through.
    """
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if batch_size % (parts * accumulate):
        micro = f" times train.accumulate {accumulate}" if accumulate > 1 else ""
        raise ValueError(
            f"data.batch_size is {batch_size}, which does not divide by the {parts} "
            f"devices of the mesh axes {BATCH_AXES}{micro}; choose a multiple of "
            f"{parts * accumulate}."
        )
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def state_sharding(mesh: Mesh, state: TrainState, rules: Rules = ()) -> TrainState:
    """Gives every leaf of a train state its sharding.

    Args:
        mesh: from `make_mesh`.
        state: arrays or shapes, as `jax.eval_shape` returns them.
        rules: `(pattern, spec)` pairs over the paths of parameters and collections; the
            first that matches counts. `spec` holds a mesh axis, a tuple of axes or None
            per array axis, and may be shorter than the array has axes.

    Returns:
        A `TrainState` of `NamedSharding`s.

    Raises:
        ValueError: for a rule that matches nothing, names an unknown axis, or does not
            divide an array.
    """
    rules = tuple((pattern, tuple(spec)) for pattern, spec in rules)
    paths = leaf_paths(state.params) + leaf_paths(state.collections)
    require_matches([pattern for pattern, _ in rules], paths, "train.sharding")

    def place(keys, leaf):
        return NamedSharding(mesh, _spec(mesh, leaf_path(keys), leaf.shape, rules))

    places = {
        leaf_path(keys): (leaf.shape, place(keys, leaf))
        for keys, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    }
    replicated = NamedSharding(mesh, PartitionSpec())

    def place_moment(keys, leaf):
        # The dictionary keys of an optimizer leaf end with the path of its parameter.
        parts = leaf_path(keys).split("/")
        for start in range(len(parts)):
            shape, sharding = places.get("/".join(parts[start:]), (None, None))
            if shape == leaf.shape:
                return sharding
        return replicated

    map_with_path = jax.tree_util.tree_map_with_path
    return TrainState(
        step=replicated,
        phase_step=replicated,
        params=map_with_path(place, state.params),
        collections=map_with_path(place, state.collections),
        opt_state=map_with_path(place_moment, state.opt_state),
        ema_params=map_with_path(place, state.ema_params),
    )


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


def describe(
    mesh: Mesh, state: TrainState, sharding: TrainState, frozen: Callable[[str], bool]
) -> str:
    """One line on the size of a run: parameters, state per device, and the mesh."""
    sizes = [
        (math.prod(leaf.shape), frozen(leaf_path(keys)))
        for keys, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    ]
    total = sum(size for size, _ in sizes)
    still = sum(size for size, is_frozen in sizes if is_frozen)
    memory = bytes_per_device(state, sharding) / 2**20
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    return (
        f"{total:,} parameters, {still:,} of them frozen; state {memory:,.1f} MiB per "
        f"device; mesh {axes} of {mesh.devices.flat[0].platform} devices"
    )


def _spec(mesh: Mesh, path: str, shape: tuple[int, ...], rules) -> PartitionSpec:
    for pattern, spec in rules:
        if matches(pattern, path):
            return _checked_spec(mesh, path, shape, spec)
    size = mesh.shape["fsdp"]
    if size == 1 or math.prod(shape) < MIN_FSDP_SIZE:
        return PartitionSpec()
    divisible = [axis for axis, length in enumerate(shape) if length % size == 0]
    if not divisible:
        return PartitionSpec()
    largest = max(divisible, key=lambda axis: shape[axis])
    return PartitionSpec(*["fsdp" if a == largest else None for a in range(len(shape))])


def _checked_spec(mesh: Mesh, path: str, shape, spec) -> PartitionSpec:
    named = [(names,) if isinstance(names, str) else names or () for names in spec]
    unknown = sorted({name for names in named for name in names} - set(AXES))
    if unknown:
        raise ValueError(
            f"train.sharding splits {path} over the unknown mesh axis {unknown[0]!r}; "
            f"{did_you_mean(unknown[0], AXES)}"
        )
    parts = [math.prod(mesh.shape[name] for name in names) for names in named]
    if len(spec) > len(shape) or any(n % p for n, p in zip(shape, parts, strict=False)):
        raise ValueError(
            f"train.sharding splits {path} of shape {shape} as {spec}, in {parts} "
            "parts; every part must divide its axis."
        )
    return PartitionSpec(*[tuple(names) or None for names in named])
