"""From a config to a model: one table of names, nested dicts built inside out."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
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
from vla_jax.models.clip_text import CLIPText
from vla_jax.models.decoder import QueryDecoder, ReadoutDecoder
from vla_jax.models.dit import DiT
from vla_jax.models.flow_transformer import JointDenoiser, PromptTrunk
from vla_jax.models.future_points import FuturePoints
from vla_jax.models.gr1 import ArmGripperProprio, GR1Trunk
from vla_jax.models.image import ConvEncoder, FlatTokens, GridTokens, PointTokens
from vla_jax.models.language import TextTransformer
from vla_jax.models.latent import ActionVAE
from vla_jax.models.lora import LoraModel, make_lora
from vla_jax.models.mlp_denoiser import MLPDenoiser
from vla_jax.models.perceiver import PerceiverResampler, ResampledTokens
from vla_jax.models.policy import Policy
from vla_jax.models.post_norm import TorchDense
from vla_jax.models.resnet import ResNet
from vla_jax.models.time_embedding import FourierTime, SinusoidalTime
from vla_jax.models.trunk import BlockwiseTrunk
from vla_jax.models.unet import UNet
from vla_jax.models.vit import CLIPVision, ViT
from vla_jax.names import check_keys, did_you_mean

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
    "vit": ViT,
    "clip_vision": CLIPVision,
    "clip_text": CLIPText,
    "perceiver": PerceiverResampler,
    "resampled": ResampledTokens,
    "arm_gripper": ArmGripperProprio,
    "gr1": GR1Trunk,
    "prompted": PromptTrunk,
    "joint": JointDenoiser,
}


# What a model computes in, as the section `compute` of its config sets it for every
# module that has such a field and does not set it itself.
COMPUTE = ("dtype", "scan", "remat")
_NONE: Mapping[str, Any] = MappingProxyType({})


def build(config: Any, compute: Mapping[str, Any] = _NONE) -> Any:
    """Builds every nested dict that has a `name`; lists become tuples.

    Args:
        config: a nested dict.
        compute: fields for every module that has them and whose dict does not.

    Raises:
        ValueError: an unknown `name` or field, with the nearest alternatives.
    """
    if isinstance(config, Mapping):
        fields = {key: build(value, compute) for key, value in config.items()}
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
        common = {key: value for key, value in compute.items() if key in known}
        return module(**{**common, **fields})
    if isinstance(config, list | tuple):
        return tuple(build(value, compute) for value in config)
    return config


def build_model(
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    attention_kernel: str = "plain",
) -> nn.Module | LoraModel:
    """Builds `config.model` and checks it against the data it will see.

    Args:
        config: the `model` section as a plain dict. Besides what the module takes, it
            may have `compute`, fields named in `COMPUTE` for all modules, and `lora`,
            the fields of `Lora`.
        metadata: `Source.metadata()`, or the one stored in a checkpoint.
        attention_kernel: implementation of attention, for every module that does not
            name one. It depends on the machine, and `model` has to run on others too.

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
    for path, key, value in _leaves(config, "model"):
        if key == "num_embodiments" and value < len(metadata["datasets"]):
            raise ValueError(
                f"{path} is {value}, but there are {len(metadata['datasets'])} data "
                "sets, each of which has prompts of its own."
            )
    vocabulary = (config.get("text") or {}).get("vocab_size")
    if vocabulary is not None and vocabulary < metadata["vocab_size"]:
        raise ValueError(
            f"model.text.vocab_size is {vocabulary}, but the tokenizer has "
            f"{metadata['vocab_size']} ids."
        )
    compute = config.get("compute", {})
    check_keys(compute, COMPUTE, "config.model.compute")
    inner = {k: v for k, v in config.items() if k not in ("compute", "lora")}
    model = build(inner, {**compute, "attention_kernel": attention_kernel})
    if config.get("lora"):
        return LoraModel(model, make_lora(config["lora"]))
    return model


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
