"""Weights of vision and text towers from local files, under three conventions.

    train.load = dict(
        image_shared=dict(kind="vit", path="weights/mae_pretrain_vit_base.pth",
                          entry="model"),
        text=dict(kind="clip_text", path="weights/clip-vit-base-patch32.safetensors"),
    )

"timm" names are also those of MAE's own files; "transformers" names are those of the
files of its ViT and ViTMAE models; CLIP's towers are read under transformers' names,
from a file of the tower or of the whole model.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from vla_jax.models.clip_text import CLIPText
from vla_jax.models.tensor_files import read_tensors
from vla_jax.models.vit import CLIPVision, ViT
from vla_jax.models.weight_map import (
    Place,
    array_shapes,
    find_prefix,
    fit_tensors,
    split_rows,
)
from vla_jax.types import Task

# Module of a layer -> its name in the file; {} is the layer's number.
_LAYERS: dict[str, dict[str, str]] = {
    "timm": {
        "attention_norm": "blocks.{}.norm1",
        "attention/q": "blocks.{}.attn.qkv",
        "attention/k": "blocks.{}.attn.qkv",
        "attention/v": "blocks.{}.attn.qkv",
        "attention/out": "blocks.{}.attn.proj",
        "mlp_norm": "blocks.{}.norm2",
        "mlp_in": "blocks.{}.mlp.fc1",
        "mlp_out": "blocks.{}.mlp.fc2",
    },
    "transformers": {
        "attention_norm": "encoder.layer.{}.layernorm_before",
        "attention/q": "encoder.layer.{}.attention.attention.query",
        "attention/k": "encoder.layer.{}.attention.attention.key",
        "attention/v": "encoder.layer.{}.attention.attention.value",
        "attention/out": "encoder.layer.{}.attention.output.dense",
        "mlp_norm": "encoder.layer.{}.layernorm_after",
        "mlp_in": "encoder.layer.{}.intermediate.dense",
        "mlp_out": "encoder.layer.{}.output.dense",
    },
    "clip": {
        "attention_norm": "{}.layer_norm1",
        "attention/q": "{}.self_attn.q_proj",
        "attention/k": "{}.self_attn.k_proj",
        "attention/v": "{}.self_attn.v_proj",
        "attention/out": "{}.self_attn.out_proj",
        "mlp_norm": "{}.layer_norm2",
        "mlp_in": "{}.mlp.fc1",
        "mlp_out": "{}.mlp.fc2",
    },
}
_VIT_ENDS: dict[str, dict[str, str]] = {
    "timm": {
        "class_token": "cls_token",
        "position": "pos_embed",
        "embed": "patch_embed.proj",
        "norm": "norm",
    },
    "transformers": {
        "class_token": "embeddings.cls_token",
        "position": "embeddings.position_embeddings",
        "embed": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    },
}
# Heads, pooling and MAE's decoder, with and without the prefix of the encoder.
_VIT_UNUSED = (
    r"(head|fc_norm|pooler|classifier)\..*|(.*\.)?mask_token|"
    r"decoder[._].*|embeddings\.position_ids"
)
_CLIP_UNUSED = (
    r"logit_scale|(vision|text)_model\.embeddings\.position_ids|"
    r"(visual|text)_projection\.weight"
)


def vit_names(model: ViT, convention: str) -> dict[Place, str]:
    """Where every array of a ViT stands in a file.

    Args:
        model: how many layers it has.
        convention: "timm" or "transformers".
    """
    ends = _VIT_ENDS[convention]
    names = {
        ("params", "class_token"): ends["class_token"],
        ("params", "position"): ends["position"],
        **_pair(("embed",), ends["embed"], ("kernel", "bias")),
        **_pair(("norm",), ends["norm"], ("scale", "bias")),
    }
    return names | _layer_names(model.num_layers, convention)


def clip_vision_names(model: CLIPVision) -> dict[Place, str]:
    """Where every array of a CLIP vision tower stands in transformers' files."""
    ends = "vision_model.embeddings"
    names = {
        ("params", "class_token"): f"{ends}.class_embedding",
        ("params", "position"): f"{ends}.position_embedding.weight",
        ("params", "embed", "kernel"): f"{ends}.patch_embedding.weight",
        # The slip in the name is in the files.
        **_pair(("pre_norm",), "vision_model.pre_layrnorm", ("scale", "bias")),
        **_pair(("norm",), "vision_model.post_layernorm", ("scale", "bias")),
    }
    if model.projection:
        names["params", "project", "kernel"] = "visual_projection.weight"
    layers = "vision_model.encoder.layers.{}"
    return names | _layer_names(model.num_layers, "clip", layers)


def clip_text_names(model: CLIPText) -> dict[Place, str]:
    """Where every array of a CLIP text tower stands in transformers' files."""
    ends = "text_model.embeddings"
    names = {
        ("params", "embed", "embedding"): f"{ends}.token_embedding.weight",
        ("params", "position"): f"{ends}.position_embedding.weight",
        **_pair(("norm",), "text_model.final_layer_norm", ("scale", "bias")),
    }
    if model.pool:
        names["params", "project", "kernel"] = "text_projection.weight"
    layers = "text_model.encoder.layers.{}"
    return names | _layer_names(model.num_layers, "clip", layers)


def load_vit(model: ViT, path: str | Path, *, entry: str = "") -> dict[str, Any]:
    """Reads a ViT's variables from a file in timm's, MAE's or transformers' naming.

    Args:
        model: the module that the weights are for.
        path: a `.pth` or `.safetensors` file.
        entry: key of the state dict in a `.pth` file that holds more than that; "model"
            in MAE's.

    Returns:
        `{"params": ...}`, float32.

    Raises:
        ValueError: naming the keys that are missing, unexpected or of another shape.
    """
    tensors = read_tensors(path, entry)
    prefixes = {
        convention: find_prefix(tensors, f"{ends['embed']}.weight")
        for convention, ends in _VIT_ENDS.items()
    }
    found = [name for name, prefix in prefixes.items() if prefix is not None]
    if not found:
        raise ValueError(
            f"{path} has neither timm's 'patch_embed.proj.weight' nor transformers' "
            "'embeddings.patch_embeddings.projection.weight'; its names are "
            f"{sorted(tensors)[:5]}."
        )
    convention = found[0]
    tensors = _without_prefix(tensors, prefixes[convention])
    if convention == "timm":
        pattern = r"blocks\.\d+\.attn\.qkv\.(weight|bias)"
        tensors = split_rows(tensors, pattern, ("q", "k", "v"))
    return fit_tensors(
        tensors,
        vit_names(model, convention),
        _vision_shapes(model),
        unused=_VIT_UNUSED,
        what=f"{path} does not fit this ViT ({convention} names)",
    )


def load_clip_vision(
    model: CLIPVision, path: str | Path, *, entry: str = ""
) -> dict[str, Any]:
    """Reads a CLIP vision tower; arguments and errors are those of `load_vit`."""
    return fit_tensors(
        _clip_tensors(path, entry, "vision_model.embeddings.patch_embedding.weight"),
        clip_vision_names(model),
        _vision_shapes(model),
        unused=rf"{_CLIP_UNUSED}|text_model\..*",
        what=f"{path} does not fit this CLIP vision tower (transformers names)",
    )


def load_clip_text(
    model: CLIPText, path: str | Path, *, entry: str = ""
) -> dict[str, Any]:
    """Reads a CLIP text tower; arguments and errors are those of `load_vit`."""
    task = Task(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))
    return fit_tensors(
        _clip_tensors(path, entry, "text_model.embeddings.token_embedding.weight"),
        clip_text_names(model),
        array_shapes(functools.partial(model.init, task=task, train=False)),
        unused=rf"{_CLIP_UNUSED}|vision_model\..*",
        what=f"{path} does not fit this CLIP text tower (transformers names)",
    )


def _clip_tensors(path: str | Path, entry: str, name: str) -> Mapping[str, np.ndarray]:
    tensors = read_tensors(path, entry)
    prefix = find_prefix(tensors, name)
    if prefix is None:
        raise ValueError(
            f"{path} has no {name!r}, transformers' name; its names are "
            f"{sorted(tensors)[:5]}."
        )
    return _without_prefix(tensors, prefix)


def _without_prefix(tensors: Mapping[str, np.ndarray], prefix: str):
    return {name.removeprefix(prefix): value for name, value in tensors.items()}


def _layer_names(num_layers: int, convention: str, within: str = "{}"):
    names: dict[Place, str] = {}
    for number in range(num_layers):
        for module, name in _LAYERS[convention].items():
            path = ("layers", f"layer_{number}", *module.split("/"))
            kinds = ("scale" if path[-1].endswith("norm") else "kernel", "bias")
            pair = _pair(path, name.format(within.format(number)), kinds)
            if convention == "timm" and path[-1] in ("q", "k", "v"):
                pair = {key: f"{value}[{path[-1]}]" for key, value in pair.items()}
            names |= pair
    return names


def _pair(path: Place, name: str, kinds: tuple[str, str]) -> dict[Place, str]:
    """Weight and bias of a layer; PyTorch calls a norm's scale its weight too."""
    weight, bias = (("params", *path, kind) for kind in kinds)
    return {weight: f"{name}.weight", bias: f"{name}.bias"}


def _vision_shapes(model: ViT | CLIPVision) -> dict[Place, tuple[int, ...]]:
    image = jnp.zeros((1, model.patch, model.patch, 3))
    return array_shapes(functools.partial(model.init, image=image, train=False))
