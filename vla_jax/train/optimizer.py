"""The optimizer: AdamW with schedule, clipping, frozen parts and learning-rate scales.

Frozen parameters are partitioned out: they have no optimizer state, do not count for
the gradient norm that clips the others, and no step changes a bit of them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vla_jax.names import did_you_mean
from vla_jax.train.paths import (
    leaf_path,
    leaf_paths,
    matches,
    pattern_pairs,
    require_matches,
)

# Last path component of parameters that are offsets, scales or tables of vectors:
# shrinking them toward zero does not regularize the map that the network computes.
_NOT_DECAYED = ("bias", "scale", "embedding", "position", "readout", "token", "query")


class Optimizer(NamedTuple):
    """An optax transformation with what the step and the sharding must know about it.

    Attributes:
        init: `params -> opt_state`.
        update: `(gradient, opt_state, params) -> (updates, opt_state)`.
        learning_rate: `phase step -> learning rate` before per-path scales.
        frozen: whether the leaf at a path is frozen, `vla_jax.train.paths` names it.
    """

    init: Callable
    update: Callable
    learning_rate: Callable[[jax.Array], jax.Array]
    frozen: Callable[[str], bool]


def make_optimizer(
    variables: Mapping[str, Any],
    num_steps: int,
    freeze: Iterable[str] = (),
    *,
    learning_rate: float,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    final_scale: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    no_decay: Iterable[str] = (),
    clip_norm: float | None = 1.0,
    learning_rate_scale: Mapping[str, float] | Iterable[tuple[str, float]] = (),
) -> Optimizer:
    """Builds AdamW (Loshchilov & Hutter, 2019) for one phase of training.

    Args:
        variables: `{"params": ..., other collections}`; arrays or their shapes.
        num_steps: length of the phase, over which the cosine falls.
        freeze: patterns of what must not change, parameters or other collections. To
            train one part alone, freeze the rest: `(?!head/residual).*`.
        learning_rate: the peak, reached after the warm-up.
        schedule: "cosine", "constant" or "rsqrt".
        warmup_steps: steps of linear warm-up; the first step already moves.
        final_scale: share of the peak at which the cosine ends.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled, times the learning rate; biases, normalization scales,
            embeddings and learned tokens are spared.
        no_decay: patterns of further parameters without weight decay.
        clip_norm: largest global norm of the gradient; None or 0 does not clip.
        learning_rate_scale: pattern -> factor; the first pattern that matches counts.

    Raises:
        ValueError: for an unknown schedule, a pattern that matches nothing, or when
            nothing is left to train.
    """
    rate = make_schedule(
        schedule,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        num_steps=num_steps,
        final_scale=final_scale,
    )
    freeze, no_decay = tuple(freeze), tuple(no_decay)
    scales = pattern_pairs(learning_rate_scale)
    paths = leaf_paths(variables["params"])
    others = leaf_paths({k: v for k, v in variables.items() if k != "params"})
    require_matches(freeze, paths + others, "freeze")
    require_matches(no_decay, paths, "no_decay")
    require_matches([p for p, _ in scales], paths, "learning_rate_scale")

    def frozen(path: str) -> bool:
        return any(matches(pattern, path) for pattern in freeze)

    if all(frozen(path) for path in paths):
        raise ValueError(f"freeze={list(freeze)} leaves no parameter to train.")

    def decayed(path: str) -> bool:
        name = path.rsplit("/", 1)[-1]
        spared = any(word in name for word in _NOT_DECAYED)
        return not spared and not any(matches(p, path) for p in no_decay)

    def scale(path: str) -> float:
        return next((s for pattern, s in scales if matches(pattern, path)), 1.0)

    trained = optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay, mask=lambda p: _map_paths(decayed, p)),
        optax.scale_by_learning_rate(rate),
        optax.stateless(lambda updates, _: _scale_paths(scale, updates)),
    )
    partitioned = optax.partition(
        {"trained": trained, "frozen": optax.set_to_zero()},
        lambda p: _map_paths(lambda x: "frozen" if frozen(x) else "trained", p),
    )
    return Optimizer(partitioned.init, partitioned.update, rate, frozen)


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    warmup_steps: int,
    num_steps: int,
    final_scale: float,
) -> Callable[[jax.Array], jax.Array]:
    """Gives the learning rate of each step of a phase.

    Step `n` of the warm-up has `(n + 1) / warmup_steps` of the peak. After it the
    cosine reaches `final_scale` of the peak at `num_steps`, "rsqrt" falls with the
    root of the step, "constant" stays.
    """

    def cosine(step):
        progress = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
        wave = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
        return final_scale + (1 - final_scale) * wave

    def rsqrt(step):
        origin = max(warmup_steps, 1)
        return jnp.sqrt(origin / jnp.maximum(step + 1, origin))

    shapes = {"constant": jnp.ones_like, "cosine": cosine, "rsqrt": rsqrt}
    if name not in shapes:
        raise ValueError(f"Unknown schedule {name!r}; {did_you_mean(name, shapes)}")

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        warmup = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))
        return learning_rate * warmup * shapes[name](step)

    return schedule


def _map_paths(function: Callable[[str], Any], tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda keys, _: function(leaf_path(keys)), tree
    )


def _scale_paths(scale: Callable[[str], float], updates: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda keys, update: update * scale(leaf_path(keys)), updates
    )
