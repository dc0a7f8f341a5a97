"""What files of towers may hold, and what is said where one does not fit."""

import numpy as np
import pytest

from vla_jax.models.tower_weights import (
    _vision_shapes,
    load_clip_vision,
    load_vit,
    vit_names,
)
from vla_jax.models.vit import VIT_SIZES, CLIPVision, ViT
from vla_jax.models.weight_map import _file_shape

TINY = ViT(width=4, num_layers=1, num_heads=2, patch=2, image_size=4)


def timm_state(rng=None):
    """A tower under timm's names; query, key and value as one tensor."""
    rng = rng or np.random.default_rng(0)
    shapes, tensors = _vision_shapes(TINY), {}
    for place, name in vit_names(TINY, "timm").items():
        tensors[name] = rng.standard_normal(_file_shape(place, shapes[place]))
    for kind in ("weight", "bias"):
        name = f"blocks.0.attn.qkv.{kind}"
        parts = [tensors.pop(f"{name}[{part}]") for part in "qkv"]
        tensors[name] = np.concatenate(parts)
    tensors["cls_token"] = tensors["cls_token"][None, None]
    tensors["pos_embed"] = tensors["pos_embed"][None]
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def write(path, tensors):
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path)
    return path


def test_timm_names_are_those_of_its_files():
    names = set(vit_names(ViT(**VIT_SIZES["B"]), "timm").values())
    assert len(names) == 6 + 12 * 16
    assert {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.11.norm2.bias",
        "blocks.0.attn.qkv.weight[k]",
        "blocks.3.mlp.fc2.weight",
        "norm.weight",
    } <= names


def test_stacked_query_key_and_value_are_cut_in_this_order(tmp_path):
    tensors = timm_state()
    found = load_vit(TINY, write(tmp_path / "a.safetensors", tensors))
    attention = found["params"]["layers"]["layer_0"]["attention"]
    stacked = tensors["blocks.0.attn.qkv.weight"]  # [3d d]
    for index, part in enumerate("qkv"):
        rows = stacked[4 * index : 4 * index + 4]
        np.testing.assert_array_equal(
            attention[part]["kernel"], rows.T.reshape(4, 2, 2)
        )
    np.testing.assert_array_equal(
        attention["out"]["kernel"],
        tensors["blocks.0.attn.proj.weight"].T.reshape(2, 2, 4),
    )


def test_decoder_and_head_of_mae_may_be_there_with_a_prefix(tmp_path):
    tensors = timm_state() | {
        "decoder_blocks.0.norm1.weight": np.zeros(3, np.float32),
        "decoder_pos_embed": np.zeros(3, np.float32),
        "mask_token": np.zeros(3, np.float32),
        "head.weight": np.zeros(3, np.float32),
    }
    tensors = {f"encoder.{name}": value for name, value in tensors.items()}
    load_vit(TINY, write(tmp_path / "a.safetensors", tensors))


def test_missing_unexpected_and_misshaped_keys_are_named(tmp_path):
    tensors = timm_state()
    del tensors["blocks.0.norm2.bias"]
    tensors["blocks.1.norm1.weight"] = np.zeros(4, np.float32)
    tensors["pos_embed"] = tensors["pos_embed"][:, :3]
    with pytest.raises(ValueError) as error:
        load_vit(TINY, write(tmp_path / "a.safetensors", tensors))
    message = str(error.value)
    assert "missing ['blocks.0.norm2.bias']" in message
    assert "unexpected ['blocks.1.norm1.weight']" in message
    assert "pos_embed: (3, 4) in the file, (5, 4) needed" in message


def test_files_of_other_models_are_refused_with_some_of_their_names(tmp_path):
    path = write(tmp_path / "a.safetensors", {"conv1.weight": np.zeros(2)})
    with pytest.raises(ValueError, match=r"neither timm's .*conv1\.weight"):
        load_vit(TINY, path)
    with pytest.raises(ValueError, match=r"no 'vision_model.*conv1\.weight"):
        load_clip_vision(CLIPVision(width=4, num_layers=1, num_heads=2), path)
