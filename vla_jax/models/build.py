"""From a config to a model: one table of names, nested dicts built inside out."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from vla_jax.heads.per_step import PerStepHead
from vla_jax.heads.regression import RegressionHead
from vla_jax.models.act import EncoderDecoderTrunk, SineGridTokens
from vla_jax.models.attention_maps import ConvStages, LevelStages, MultistageMaps
from vla_jax.models.attention_points import AttentionPoints
from vla_jax.models.future_points import FuturePoints
from vla_jax.models.image import ConvEncoder, FlatTokens, GridTokens, PointTokens
from vla_jax.models.language import TextTransformer
from vla_jax.models.latent import ActionVAE
from vla_jax.models.policy import Policy
from vla_jax.models.post_norm import TorchDense
from vla_jax.models.resnet import ResNet
from vla_jax.models.trunk import BlockwiseTrunk
from vla_jax.names import did_you_mean

MODULES: dict[str, type[nn.Module]] = {
    "policy": Policy,
    "conv": ConvEncoder,
    "flat": FlatTokens,
    "grid": GridTokens,
    "points": PointTokens,
    "text_transformer": TextTransformer,
    "blockwise": BlockwiseTrunk,
    "regression": RegressionHead,
    "resnet": ResNet,
    "sine_grid": SineGridTokens,
    "linear": TorchDense,
    "action_vae": ActionVAE,
    "encoder_decoder": EncoderDecoderTrunk,
    "per_step": PerStepHead,
    "level_stages": LevelStages,
    "conv_stages": ConvStages,
    "multistage_maps": MultistageMaps,
    "attention_points": AttentionPoints,
    "future_points": FuturePoints,
}


def build(config: Any) -> Any:
    """Builds every nested dict that has a `name`; lists become tuples.

    Raises:
        ValueError: an unknown `name` or field, with the nearest alternatives.
    """
    if isinstance(config, Mapping):
        fields = {key: build(value) for key, value in config.items()}
        if "name" not in fields:
            return fields
        name = fields.pop("name")
        if name not in MODULES:
            raise ValueError(f"Unknown module {name!r}; {did_you_mean(name, MODULES)}")
        module = MODULES[name]
        known = set(module.__dataclass_fields__) - {"name", "parent"}
        for key in fields:
            if key not in known:
                raise ValueError(
                    f"Module {name!r} has no field {key!r}; {did_you_mean(key, known)}"
                )
        return module(**fields)
    if isinstance(config, list | tuple):
        return tuple(build(value) for value in config)
    return config


def build_model(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> nn.Module:
    """Builds `config.model` and checks it against the data it will see.

    Args:
        config: the `model` section as a plain dict.
        metadata: `Source.metadata()`, or the one stored in a checkpoint.

    Raises:
        ValueError: an unknown name or field, or a chunk, action size or vocabulary
            that differs from the data's.
    """
    head = config.get("head", {})
    pairs = [
        ("model.head.chunk", head.get("chunk"), "data.chunk", metadata["chunk"]),
        (
            "model.head.action_dim",
            head.get("action_dim"),
            "the data's action size",
            metadata["action_dim"],
        ),
    ]
    for name, value, source, expected in pairs:
        if value is not None and value != expected:
            raise ValueError(f"{name} is {value}, but {source} is {expected}.")
    vocabulary = (config.get("text") or {}).get("vocab_size")
    if vocabulary is not None and vocabulary < metadata["vocab_size"]:
        raise ValueError(
            f"model.text.vocab_size is {vocabulary}, but the tokenizer has "
            f"{metadata['vocab_size']} ids."
        )
    return build(config)
