"""The config of a run: sections, the defaults of `train`, phases, what may change.

A config is a plain nested dict. Misspelled keys are refused with the nearest names, and
a run that is resumed must have the config it was started with, save for keys that do
not change what is learned.
"""

import difflib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from vla_jax.train.optimizer import make_optimizer

SECTIONS = ("seed", "data", "model", "optimizer", "train", "evaluation")

TRAIN_DEFAULTS: dict[str, Any] = dict(
    steps=None,  # updates; with phases, absent or their sum
    phases=(),  # dicts with the fields of `Phase`, in order; empty for a single phase
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

# Read by those who play the policy, `launch/evaluate.py` and `serving/agent.py`.
EVALUATION_KEYS = ("primary", "horizon", "execute", "ensemble")

# Patterns of keys that a resumed run may change.
HARMLESS = (
    r"evaluation(\..*)?",
    r"data\.(num_threads|prefetch)",
    r"data\.datasets\.\d+\.path",  # the metadata still has to be the same
    r"train\.(steps|log_every|save_every|keep|eval_every|eval_batches)",
    r"train\.(mesh|sharding|compile_cache|tensorboard|wandb)(\..*)?",
)

_NONE: Mapping[str, Any] = MappingProxyType({})


class Phase(NamedTuple):
    """A stretch of training with one objective.

    Attributes:
        name: shown in metrics.
        steps: length in updates.
        loss_weights: loss name -> weight, 1 where absent.
        freeze: patterns of what must not change, see `train/paths.py`.
        optimizer: fields of the optimizer section that differ in this phase.
        start: step at which it begins; derived.
    """

    name: str
    steps: int
    loss_weights: Mapping[str, float] = _NONE
    freeze: Sequence[str] = ()
    optimizer: Mapping[str, Any] = _NONE
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
    check_keys(config, SECTIONS, "config")
    missing = [key for key in SECTIONS[:-1] if key not in config]
    if missing:
        raise ValueError(f"The config lacks the sections {missing}.")
    check_keys(config["train"], TRAIN_DEFAULTS, "config.train")
    check_keys(config["optimizer"], _optimizer_fields(), "config.optimizer")
    check_keys(config.get("evaluation", {}), EVALUATION_KEYS, "config.evaluation")
    train = {**TRAIN_DEFAULTS, **config["train"]}
    for key in ("log_every", "save_every", "eval_batches"):
        if not train[key] or train[key] < 1:
            raise ValueError(f"train.{key} is {train[key]}; it must be at least 1.")
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
        check_keys(entry, fields, place)
        absent = [field for field in ("name", "steps") if field not in entry]
        if absent:
            raise ValueError(f"{place} lacks {absent}.")
        check_keys(
            entry.get("optimizer", {}), _optimizer_fields(), f"{place}.optimizer"
        )
        if not isinstance(entry["steps"], int) or entry["steps"] < 1:
            raise ValueError(
                f"{place}.steps is {entry['steps']!r}; expected a positive integer."
            )
        phases.append(Phase(**entry, start=start))
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


def check_keys(section: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    """Refuses keys of `section` that are not `known`, naming the nearest that are."""
    known = list(known)
    for key in section:
        if key not in known:
            near = difflib.get_close_matches(str(key), known)
            hint = f"did you mean {' or '.join(near)}? Choose" if near else "choose"
            raise ValueError(
                f"Unknown key {key!r} in {place}; {hint} from {sorted(known)}."
            )


def require_same(
    before: Mapping[str, Any], now: Mapping[str, Any], what: str, workdir: Any
) -> None:
    """Refuses to go on when something other than a harmless key has changed.

    Args:
        before: the stored config or metadata.
        now: the present one.
        what: "config" or "metadata", for the message.
        workdir: the folder of the run, for the message.

    Raises:
        ValueError: with every key that differs and both of its values.
    """
    changes = changed_keys(before, now)
    if changes:
        lines = "".join(f"\n  {key}: {a!r} -> {b!r}" for key, a, b in changes)
        raise ValueError(
            f"{workdir} was started with another {what}:{lines}\n"
            "Undo the change to go on, or start in another folder. Only these may "
            f"change: {', '.join(HARMLESS)}, and the steps of the last phase."
        )


def changed_keys(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Lists `(key, value before, value now)` wherever it matters that they differ."""
    phases = len(now.get("train", {}).get("phases", ()))
    harmless = (*HARMLESS, rf"train\.phases\.{phases - 1}\.steps")
    # Through JSON, a tuple and a list are the same.
    before = dict(_flatten(json.loads(json.dumps(before))))
    now = dict(_flatten(json.loads(json.dumps(now))))
    absent = "(absent)"
    return [
        (key, before.get(key, absent), now.get(key, absent))
        for key in sorted({**before, **now})
        if before.get(key, absent) != now.get(key, absent)
        and not any(re.fullmatch(pattern, key) for pattern in harmless)
    ]


def _flatten(tree: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in children:
        key = f"{prefix}{key}"
        if isinstance(value, dict | list) and value:
            yield from _flatten(value, f"{key}.")
        else:
            yield key, value


def _optimizer_fields() -> list[str]:
    parameters = inspect.signature(make_optimizer).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
