"""The config of a run: sections, the defaults of `train`, and phases.

A config is a plain nested dict. Misspelled keys are refused with the nearest names.
What a resumed run may change stands in `train/resume.py`.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from vla_jax.names import check_keys
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.ramp import Weights, read_weights

SECTIONS = ("seed", "data", "model", "optimizer", "train", "evaluation")

TRAIN_DEFAULTS: dict[str, Any] = dict(
    steps=None,  # updates; with phases, absent or their sum
    accumulate=1,  # micro-batches per update; each is `data.batch_size` divided by it
    phases=(),  # dicts with the fields of `Phase`, in order; empty for a single phase
    loss_weights={},  # of every phase, unless it says otherwise; see `train/ramp.py`
    load={},  # weights of other projects, see `train/pretrained.py`
    log_every=50,
    save_every=1000,  # the end of a phase is saved in any case
    keep=3,  # latest checkpoints; 0 keeps all, ends of phases always stay
    eval_every=1000,  # 0 never evaluates on held-out batches
    eval_batches=8,
    ema_decay=0.0,  # 0 keeps no average of the parameters
    mesh={},  # sizes of (replica, data, fsdp, tensor), see `make_mesh`
    sharding=(),  # (pattern, spec) pairs, see `state_sharding`
    augment={},  # see `models/augment.py`
    compile_cache="",  # folder of compiled programs; "" compiles anew
    tensorboard=True,
    wandb=False,
)

_LEAST = dict(log_every=1, save_every=1, eval_every=0, eval_batches=1, accumulate=1)

# Read by those who play the policy, `launch/evaluate.py` and `serving/agent.py`.
EVALUATION_KEYS = ("primary", "horizon", "execute", "ensemble")

_NONE: Mapping[str, Any] = MappingProxyType({})


class Phase(NamedTuple):
    """A stretch of training with one objective.

    Attributes:
        name: shown in metrics.
        steps: length in updates.
        loss_weights: loss name -> weight or `Ramp`, 1 where absent.
        freeze: patterns of what must not change, see `train/paths.py`.
        optimizer: fields of the optimizer section that differ in this phase.
        from_average: start from the averaged parameters, those that are served, so that
            a part that this phase freezes stays what the phase before has delivered.
        start: step at which it begins; derived.
    """

    name: str
    steps: int
    loss_weights: Weights = _NONE
    freeze: Sequence[str] = ()
    optimizer: Mapping[str, Any] = _NONE
    from_average: bool = False
    start: int = 0

    @property
    def stop(self) -> int:
        """Step at which the phase has ended."""
        return self.start + self.steps


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the names in a config and fills in the defaults of `train`.

    Args:
        config: a nested dict or an `ml_collections.ConfigDict`.

    Returns:
        A plain dict that survives a round trip through JSON.

    Raises:
        ValueError: a missing section, an unknown key, an impossible number, or a value
            that JSON cannot hold.
    """
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    check_keys(config, SECTIONS, "config", required=SECTIONS[:-1])
    check_keys(config["train"], TRAIN_DEFAULTS, "config.train")
    check_keys(config["optimizer"], _optimizer_fields(), "config.optimizer")
    check_keys(config.get("evaluation", {}), EVALUATION_KEYS, "config.evaluation")
    train = {**TRAIN_DEFAULTS, **config["train"]}
    for key, least in _LEAST.items():
        if not isinstance(train[key], int) or train[key] < least:
            raise ValueError(
                f"train.{key} is {train[key]!r}; expected an integer of at least "
                f"{least}."
            )
    if train["ema_decay"] is None or not 0 <= train["ema_decay"] < 1:
        raise ValueError(f"train.ema_decay is {train['ema_decay']}; expected [0, 1).")
    config = {"evaluation": {}, **config, "train": train}
    make_phases(train)
    try:
        return json.loads(json.dumps(config))
    except TypeError as error:
        raise ValueError(
            f"The config holds a value that is not JSON: {error}"
        ) from error


def make_phases(train: Mapping[str, Any]) -> tuple[Phase, ...]:
    """Reads the phases of the `train` section and lays them end to end.

    Raises:
        ValueError: an unknown or missing field, a name that comes twice, a length that
            is not positive, or a `train.steps` other than the sum of the phases.
    """
    entries = train["phases"] or (dict(name="train", steps=train["steps"]),)
    fields = [field for field in Phase._fields if field != "start"]
    phases, start = [], 0
    for number, entry in enumerate(entries):
        place = f"config.train.phases[{number}]" if train["phases"] else "config.train"
        check_keys(entry, fields, place, required=("name", "steps"))
        check_keys(
            entry.get("optimizer", {}), _optimizer_fields(), f"{place}.optimizer"
        )
        if not isinstance(entry["steps"], int) or entry["steps"] < 1:
            raise ValueError(
                f"{place}.steps is {entry['steps']!r}; expected a positive integer."
            )
        if entry.get("from_average") and not (phases and train.get("ema_decay")):
            raise ValueError(
                f"{place}.from_average needs a phase before it and train.ema_decay "
                f"above 0; ema_decay is {train.get('ema_decay')}."
            )
        weights = {**train.get("loss_weights", {}), **entry.get("loss_weights", {})}
        weights = read_weights(weights, entry["steps"], f"{place}.loss_weights")
        phases.append(Phase(**{**entry, "loss_weights": weights}, start=start))
        start = phases[-1].stop
    names = [phase.name for phase in phases]
    if len(set(names)) != len(names):
        raise ValueError(f"The phases {names} need different names.")
    if train["phases"] and train["steps"] not in (None, start):
        raise ValueError(
            f"train.steps is {train['steps']}, but the phases add up to {start}; "
            "change the steps of a phase and leave train.steps out."
        )
    return tuple(phases)


def _optimizer_fields() -> list[str]:
    parameters = inspect.signature(make_optimizer).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
