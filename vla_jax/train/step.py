"""One training step: a pure function from state, batch and root key to the next state.

All randomness of step `n` is derived from `fold_in(root, n)`, so a resumed run draws
the numbers that the uninterrupted run would have drawn, on any number of devices.
"""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from vla_jax.train.optimizer import Optimizer
from vla_jax.train.paths import leaf_path
from vla_jax.train.ramp import Ramp, Weights, weights_at
from vla_jax.types import Batch

# Numbers folded into the root key that no step ever reaches.
_INIT = 2**32 - 1
_EVALUATION = 2**32 - 2

Augment = Callable[[jax.Array, Batch], Batch]
Metrics = dict[str, jax.Array]


@struct.dataclass
class TrainState:
    """Everything that a step changes. The root key is not in it: it never changes."""

    step: jax.Array  # int32, updates since the start of training
    phase_step: jax.Array  # int32, updates since the start of the phase
    params: Any
    collections: dict[str, Any]  # mutable collections, such as a codebook; may be empty
    opt_state: Any
    ema_params: Any  # like params; None when no average is kept


def init_variables(
    model: nn.Module, weights: Weights, batch: Batch, root: jax.Array
) -> dict[str, Any]:
    """Draws the variables of `model` through its loss, which reaches every parameter.

    Returns:
        `{"params": ..., other collections}` in plain dicts.
    """
    params, noise, dropout = jax.random.split(jax.random.fold_in(root, _INIT), 3)
    return model.init(
        {"params": params, "noise": noise, "dropout": dropout},
        batch,
        train=True,
        weights=weights_at(weights),
        method="loss",
    )


def init_state(
    optimizer: Optimizer, variables: Mapping[str, Any], *, ema: bool
) -> TrainState:
    """The state before the first step; with `ema` the average starts at the params."""
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        phase_step=jnp.zeros((), jnp.int32),
        params=params,
        collections={k: v for k, v in variables.items() if k != "params"},
        opt_state=optimizer.init(params),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
    )


def start_phase(optimizer: Optimizer, state: TrainState, *, ema: bool) -> TrainState:
    """Enters the next phase: parameters stay, what was made from their past does not.

    A phase that starts from the average is given it as `state.params`.

    The optimizer state is new and the average starts again at the parameters, so that a
    part that the new phase freezes is the same in both: what is trained on top of a
    frozen part is then also served on top of exactly that part.
    """
    return state.replace(
        phase_step=jnp.zeros((), jnp.int32),
        opt_state=optimizer.init(state.params),
        ema_params=jax.tree.map(jnp.copy, state.params) if ema else None,
    )


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    augment: Augment,
    weights: Weights,
    ema_decay: float,
    state: TrainState,
    batch: Batch,
    rng: jax.Array,
    *,
    accumulate: int = 1,
) -> tuple[TrainState, Metrics]:
    """Makes one update.

    Args:
        model: a module with `loss(batch, *, train, weights) -> (loss [b], metrics)`.
        optimizer: made by `make_optimizer` for the phase.
        augment: `(rng, batch) -> batch`, random changes to the images.
        weights: loss weights of the phase, by the names that the model gives its terms;
            one that grows is also a metric, `weight/<name>`.
        ema_decay: decay of the parameter average; unused where the state keeps none.
        state: donated by the caller.
        batch: one global batch.
        rng: the root key, the same at every step.
        accumulate: number of equal micro-batches that the batch is worked through in,
            one after the other to save memory. The gradient is their mean, as that of
            the whole batch; draws differ, and collections are updated by each in turn.

    Returns:
        The next state and scalar metrics: the mean of what the model reports, `loss`,
        `gradient_norm` (before clipping), `parameter_norm`, `learning_rate`, and the
        flag `nonfinite`.

    Raises:
        ValueError: the batch does not divide by `accumulate`.
    """

    def differentiate(collections, batch, rng):
        """Gradient, metrics with the loss, and next collections of a micro-batch."""
        noise, dropout, augment_rng = jax.random.split(rng, 3)
        batch = augment(augment_rng, batch)

        def mean_loss(params):
            (loss, metrics), updated = model.apply(
                {"params": _stop_frozen(optimizer, params), **collections},
                batch,
                train=True,
                weights=now,
                rngs={"noise": noise, "dropout": dropout},
                mutable=list(collections),
                method="loss",
            )
            loss = jnp.mean(loss)
            metrics = {**jax.tree.map(jnp.mean, metrics), "loss": loss}
            return loss, (metrics, _keep_frozen(optimizer, collections, updated))

        gradient, aux = jax.grad(mean_loss, has_aux=True)(state.params)
        return gradient, *aux

    rng = jax.random.fold_in(rng, state.step)
    now = weights_at(weights, state.phase_step)
    growing = [name for name, weight in weights.items() if isinstance(weight, Ramp)]
    if accumulate == 1:
        gradient, metrics, collections = differentiate(state.collections, batch, rng)
    else:
        gradient, metrics, collections = _accumulate(
            differentiate, state, batch, rng, accumulate
        )
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = _apply_updates(optimizer, state.params, updates)
    gradient_norm = optax.global_norm(gradient)
    next_state = TrainState(
        step=state.step + 1,
        phase_step=state.phase_step + 1,
        params=params,
        collections=collections,
        opt_state=opt_state,
        ema_params=_average(optimizer, state, params, ema_decay),
    )
    return next_state, {
        **metrics,
        "gradient_norm": gradient_norm,
        "parameter_norm": optax.global_norm(params),
        "learning_rate": optimizer.learning_rate(state.phase_step),
        **{f"weight/{name}": now[name] for name in growing},
        "nonfinite": ~(jnp.isfinite(metrics["loss"]) & jnp.isfinite(gradient_norm)),
    }


def eval_step(
    model: nn.Module,
    weights: Weights,
    params: Any,
    collections: Mapping[str, Any],
    batch: Batch,
    rng: jax.Array,
    index: jax.Array,
) -> Metrics:
    """The mean loss and metrics of one held-out batch, without augmentation.

    The noise depends on `index`, the number of the batch, and not on the step, so
    that two evaluations differ by the parameters alone.
    """
    rng = jax.random.fold_in(jax.random.fold_in(rng, _EVALUATION), index)
    noise, dropout = jax.random.split(rng)
    loss, metrics = model.apply(
        {"params": params, **collections},
        batch,
        train=False,
        weights=weights_at(weights),
        rngs={"noise": noise, "dropout": dropout},
        method="loss",
    )
    return {**jax.tree.map(jnp.mean, metrics), "loss": jnp.mean(loss)}


def _accumulate(
    differentiate: Callable, state: TrainState, batch: Batch, rng: jax.Array, count: int
) -> tuple[Any, Metrics, Any]:
    """Scans `differentiate` over micro-batches; means of gradient and metrics."""

    def add(carry, micro):
        total, collections = carry
        gradient, metrics, collections = differentiate(collections, *micro)
        return (jax.tree.map(jnp.add, total, gradient), collections), metrics

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    (total, collections), metrics = jax.lax.scan(
        add,
        (zeros, state.collections),
        (_split(batch, count), jax.random.split(rng, count)),
    )
    gradient = jax.tree.map(lambda x: x / count, total)
    return gradient, jax.tree.map(lambda x: jnp.mean(x, 0), metrics), collections


def _split(batch: Batch, count: int) -> Batch:
    """Leaves `[b ...]` as `[count b/count ...]`.

    Micro-batch `i` has the rows `i, i + count, ...`: where the rows are split over
    devices in runs, each device has a share of every micro-batch.
    """
    chex.assert_equal_shape_prefix(jax.tree.leaves(batch), 1)
    size = batch.action.shape[0]
    if size % count:
        raise ValueError(
            f"A batch of {size} does not divide into train.accumulate={count} "
            "micro-batches."
        )
    return jax.tree.map(
        lambda x: x.reshape(size // count, count, *x.shape[1:]).swapaxes(0, 1), batch
    )


def _stop_frozen(optimizer: Optimizer, params: Any) -> Any:
    """Cuts frozen leaves out of the gradient, so that none is computed for them."""
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf: (
            jax.lax.stop_gradient(leaf) if optimizer.frozen(leaf_path(keys)) else leaf
        ),
        params,
    )


def _apply_updates(optimizer: Optimizer, params: Any, updates: Any) -> Any:
    # A frozen leaf is passed through: adding a zero would turn -0.0 into 0.0.
    return jax.tree_util.tree_map_with_path(
        lambda keys, leaf, update: (
            leaf
            if optimizer.frozen(leaf_path(keys))
            else optax.apply_updates(leaf, update)
        ),
        params,
        updates,
    )


def _keep_frozen(optimizer: Optimizer, old: Any, new: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda keys, before, after: (
            before if optimizer.frozen(leaf_path(keys)) else after
        ),
        old,
        dict(new),
    )


def _average(optimizer: Optimizer, state: TrainState, params: Any, decay: float) -> Any:
    """Moves the average toward `params`; frozen leaves of it stay bit for bit.

    The decay grows from 1/10 to its final value, as in Polyak averaging with warm-up,
    so that the initial values are soon forgotten in a short run.
    """
    if state.ema_params is None:
        return None
    count = state.phase_step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree_util.tree_map_with_path(
        lambda keys, average, leaf: (
            average
            if optimizer.frozen(leaf_path(keys))
            else average + (1 - decay).astype(leaf.dtype) * (leaf - average)
        ),
        state.ema_params,
        params,
    )
