"""From a config to a model: one table of names, nested dicts built inside out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn

from vla_jax.heads.diffusion import DiffusionHead
from vla_jax.heads.flow import FlowHead
from vla_jax.heads.hierarchical import HierarchicalHead
from vla_jax.heads.per_step import PerStepHead
from vla_jax.heads.regression import RegressionHead
from vla_jax.models.act import EncoderDecoderTrunk, SineGridTokens
from vla_jax.models.attention_maps import ConvStages, LevelStages, MultistageMaps
from vla_jax.models.attention_points import AttentionPoints
from vla_jax.models.decoder import QueryDecoder, ReadoutDecoder
from vla_jax.models.dit import DiT
from vla_jax.models.future_points import FuturePoints
from vla_jax.models.image import ConvEncoder, FlatTokens, GridTokens, PointTokens
from vla_jax.models.language import TextTransformer
from vla_jax.models.latent import ActionVAE
from vla_jax.models.mlp_denoiser import MLPDenoiser
from vla_jax.models.policy import Policy
from vla_jax.models.post_norm import TorchDense
from vla_jax.models.resnet import ResNet
from vla_jax.models.time_embedding import FourierTime, SinusoidalTime
from vla_jax.models.trunk import BlockwiseTrunk
from vla_jax.models.unet import UNet
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
    "diffusion": DiffusionHead,
    "flow": FlowHead,
    "hierarchical": HierarchicalHead,
    "query_decoder": QueryDecoder,
    "readout_decoder": ReadoutDecoder,
    "mlp": MLPDenoiser,
    "dit": DiT,
    "unet": UNet,
    "sinusoidal": SinusoidalTime,
    "fourier": FourierTime,
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
    sizes = {
        "chunk": ("data.chunk", metadata["chunk"]),
        "action_dim": ("the data's action size", metadata["action_dim"]),
    }
    for path, key, value in _leaves(config.get("head", {}), "model.head"):
        if key in sizes and value != sizes[key][1]:
            source, expected = sizes[key]
            raise ValueError(f"{path} is {value}, but {source} is {expected}.")
        if key == "gripper_dims":
            _check_gripper(path, value, metadata)
    vocabulary = (config.get("text") or {}).get("vocab_size")
    if vocabulary is not None and vocabulary < metadata["vocab_size"]:
        raise ValueError(
            f"model.text.vocab_size is {vocabulary}, but the tokenizer has "
            f"{metadata['vocab_size']} ids."
        )
    return build(config)


def _leaves(config: Mapping[str, Any], place: str) -> Iterator[tuple[str, str, Any]]:
    """Every field of nested modules: its path, its name and its value."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{place}.{key}")
        else:
            yield f"{place}.{key}", key, value


def _check_gripper(path: str, dims: Sequence[int], metadata: Mapping[str, Any]) -> None:
    """Refuses to decide over a dimension that is no gripper in one of the data sets."""
    for dataset in metadata["datasets"]:
        kinds = dataset["action"]
        for dim in dims:
            if dim < 0 or dim >= len(kinds) or kinds[dim] != "gripper":
                grippers = [i for i, kind in enumerate(kinds) if kind == "gripper"]
                raise ValueError(
                    f"{path} has {dim}, but the grippers of data set "
                    f"{dataset['name']!r} are the dimensions {grippers} of its action."
                )
