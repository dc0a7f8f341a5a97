"""Which policies have a peer of the same shape in PyTorch. PyTorch is not needed."""

from collections.abc import Mapping
from typing import Any


def peer_of(config: Mapping[str, Any]) -> str:
    """ "act", "blockwise", or "" for a policy that has none.

    Args:
        config: an experiment.
    """
    model = config["model"]
    if config["data"]["window"] != 1 or not config["data"]["cameras"]:
        return ""
    if model.get("attention") or model.get("lora"):
        return ""
    images = {_name(part) for part in model["image"].values()}
    tokens = {_name(part) for part in model["tokens"].values()}
    chain = _name(model["trunk"]), _name(model["head"])
    if (
        chain == ("encoder_decoder", "per_step")
        and set(model["image"]) == {"shared"}
        and images == {"resnet"}
        and model["image"]["shared"].get("depth", 18) in (18, 34)
        and tokens == {"sine_grid"}
        and _name(model.get("latent")) == "action_vae"
        and not model.get("text")
    ):
        return "act"
    if (
        chain == ("blockwise", "regression")
        and images <= {"conv"}
        and tokens <= {"grid", "flat"}
        and not model["head"].get("decoder")
        and not model["head"].get("gripper_dims")
        and _name(model.get("text")) == "text_transformer"
        and not model["text"].get("num_layers", 1)
        and model.get("proprio", True) is True
        and not model.get("latent")
    ):
        return "blockwise"
    return ""


def _name(part: Mapping[str, Any] | None) -> str:
    return part["name"] if part else ""
