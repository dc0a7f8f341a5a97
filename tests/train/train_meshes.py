"""Ten steps of the real policy on one and on eight simulated devices.

python tests/train/train_meshes.py OUT writes what happened on each mesh as JSON.
"""

import functools
import json
import sys
from pathlib import Path

import jax
import numpy as np

from tests.fake_batch import make_batch, policy_config
from tests.train.toy import no_augment
from vla_jax.models.build import build
from vla_jax.train.memory import bytes_per_device
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.paths import leaf_path
from vla_jax.train.sharding import batch_sharding, make_mesh, state_sharding
from vla_jax.train.step import init_state, init_variables, train_step

MESHES = (
    dict(data=8),
    dict(fsdp=8),
    dict(data=2, tensor=4),
    dict(replica=2, fsdp=2, tensor=2),
)


def run(axes: dict, devices: list) -> dict:
    """The losses, the placements of `params`, and bytes of the state per device."""
    mesh = make_mesh(axes, devices)
    config = policy_config()
    config["trunk"] |= dict(width=16, mlp_width=32, num_heads=4)
    config["text"] |= dict(num_layers=0)
    model, root = build(config), jax.random.key(0)
    batches = [
        make_batch(number, batch=8, cameras=("primary",)) for number in range(10)
    ]
    draw = functools.partial(init_variables, model, {})
    # A large eps: without it Adam turns rounding of tiny gradients into whole steps.
    optimizer = make_optimizer(
        jax.eval_shape(draw, batches[0], root), 10, learning_rate=1e-2, eps=1e-2
    )

    state = init_state(optimizer, jax.jit(draw)(batches[0], root), ema=True)
    shapes = jax.eval_shape(lambda: state)
    sharding = state_sharding(mesh, shapes, min_size=64)
    state = jax.device_put(state, sharding)
    step = jax.jit(
        functools.partial(train_step, model, optimizer, no_augment, {}, 0.9),
        donate_argnums=0,
        out_shardings=(sharding, None),
    )
    losses = []
    for batch in batches:
        state, metrics = step(
            state, jax.device_put(batch, batch_sharding(mesh, 8)), root
        )
        losses.append(float(metrics["loss"]))
    parts = ("params", "opt_state", "ema_params")
    return dict(
        losses=losses,
        bytes={
            part: bytes_per_device(getattr(shapes, part), getattr(sharding, part))
            for part in parts
        },
        specs={
            leaf_path(keys): str(leaf.sharding.spec)
            for keys, leaf in jax.tree_util.tree_leaves_with_path(state.params)
        },
        moments=_as_placed(state),
        norm=float(np.sqrt(sum(np.sum(np.square(x)) for x in _numpy(state.params)))),
    )


def _as_placed(state) -> bool:
    """Whether both moments and the average of every parameter lie like it."""
    params = jax.tree_util.tree_leaves_with_path(state.params)
    places = {leaf_path(keys): leaf.sharding for keys, leaf in params}
    found = [
        places[path].is_equivalent_to(leaf.sharding, leaf.ndim)
        for tree in (state.opt_state, state.ema_params)
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)
        for path in [leaf_path(keys).removeprefix("trained/")]
        if path in places
    ]
    assert len(found) == 3 * len(places), (len(found), len(places))
    return all(found)


def _numpy(tree) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


if __name__ == "__main__":
    assert jax.device_count() == 8, jax.devices()
    alone = run({}, jax.devices()[:1])
    meshes = [run(axes, jax.devices()) for axes in MESHES]
    Path(sys.argv[1]).write_text(json.dumps([alone, *meshes]))
