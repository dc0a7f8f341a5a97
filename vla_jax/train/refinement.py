"""Puts AnchorRefine (Jia et al., 2026) on top of any policy, by its config.

The policy's head becomes the anchor, and a second phase trains another head on what it
leaves. `configs/gr1.py` and `configs/flow.py` do so; `heads/hierarchical.py` says how
the two heads work together.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

REFINE, TOKENS, SCALE = "head/refine", "head/anchor_tokens", "residual_scale"
_NONE: Mapping[str, Any] = MappingProxyType({})


def add_refinement(
    config: Mapping[str, Any],
    refine: Mapping[str, Any],
    *,
    steps: int,
    fields: Mapping[str, Any] = _NONE,
    optimizer: Mapping[str, Any] = _NONE,
) -> dict[str, Any]:
    """The config of a policy, with a refinement of its head.

    Phase one is the training of `config` and delivers the same policy: the refinement
    has no part in it. Phase two trains the refinement and nothing else, from the
    averaged parameters where `train.ema_decay` keeps some.

    Args:
        config: of a policy that trains in one phase, as a nested dict.
        refine: config of the second head; it must begin at zero.
        steps: of phase two.
        fields: of `HierarchicalHead` that differ from its defaults, such as
            `scale_residual`, which a generative refinement needs, or an ablation.
        optimizer: fields of the optimizer that differ in phase two.

    Raises:
        ValueError: a config of several phases, or one whose head has a refinement.
    """
    model, train = config["model"], config["train"]
    phases = train.get("phases") or (dict(name="anchor", steps=train["steps"]),)
    if len(phases) != 1 or model["head"]["name"] == "hierarchical":
        names = [phase["name"] for phase in phases]
        raise ValueError(
            f"A refinement can be added to a plain head trained in one phase; this "
            f"policy has the phases {names} and a {model['head']['name']!r} head."
        )
    head = dict(name="hierarchical", anchor=model["head"], refine=refine, **fields)
    added = [REFINE]
    added += [TOKENS] * head.get("explicit", False)
    added += [SCALE] * head.get("scale_residual", False)
    anchor = {**phases[0], "name": "anchor"}
    anchor["freeze"] = (*anchor.get("freeze", ()), *added)
    anchor["loss_weights"] = {**anchor.get("loss_weights", {}), "refine": 0.0}
    second = dict(
        name="refine",
        steps=steps,
        loss_weights={"anchor": 0.0},
        # An anchor that is not detached is trained along, with what was not frozen.
        freeze=(f"(?!{'|'.join(added)}).*",)
        if head.get("detach", True)
        else tuple(phases[0].get("freeze", ())),
        optimizer=dict(optimizer),
        from_average=train.get("ema_decay", 0.0) > 0,
    )
    train = {key: value for key, value in train.items() if key != "steps"}
    return {
        **config,
        "model": {**model, "head": head},
        "train": {**train, "phases": (anchor, second)},
    }
