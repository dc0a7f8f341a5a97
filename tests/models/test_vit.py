"""Vision and text towers against transformers, through the files that it writes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.clip_text import CLIPText
from vla_jax.models.tower_weights import load_clip_text, load_clip_vision, load_vit
from vla_jax.models.vit import (
    PIXELS,
    VIT_SIZES,
    CLIPVision,
    ViT,
    cubic_weights,
    interpolate_positions,
)
from vla_jax.types import Task

TINY = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
WIDE = dict(intermediate_size=32, image_size=8, patch_size=4)
OURS = dict(width=8, num_layers=2, num_heads=2, patch=4, image_size=8)
TEXT = dict(vocab_size=20, max_position_embeddings=7, projection_dim=6)


def images(kind, height=8, width=8):
    """The same pictures for us, -1..1 and channels last, and for transformers."""
    import torch

    image = np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3))
    mean, std = (np.array(value) for value in PIXELS[kind])
    there = ((image + 1) / 2 - mean) / std
    there = torch.tensor(there.transpose(0, 3, 1, 2), dtype=torch.float32)
    return jnp.asarray(image, jnp.float32), there


def drawn(model):
    """Random numbers for what starts at zero or one, so that no mistake hides there."""
    import torch

    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def on_device(variables):
    return jax.tree.map(jnp.asarray, variables)


def saved(model, folder):
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-4)


def test_mae_tower_agrees_with_transformers(tmp_path):
    import torch
    import transformers

    config = transformers.ViTMAEConfig(
        **TINY, **WIDE, layer_norm_eps=1e-6, mask_ratio=0.0
    )
    theirs = drawn(transformers.ViTMAEModel(config))
    model = ViT(**OURS, levels=(1,))
    variables = on_device(load_vit(model, saved(theirs, tmp_path)))
    image, there = images("imagenet")
    levels = model.apply(variables, image, train=False)
    order = torch.arange(4.0)[None].repeat(2, 1)
    out = theirs(there, noise=order, output_hidden_states=True)
    assert {k: v.shape for k, v in levels.items()} == {
        "cls": (2, 1, 1, 8),
        "patches": (2, 2, 2, 8),
        "layer1": (2, 2, 2, 8),
    }
    close(levels["cls"][:, 0, 0], out.last_hidden_state[:, 0])
    close(levels["patches"].reshape(2, 4, 8), out.last_hidden_state[:, 1:])
    close(levels["layer1"].reshape(2, 4, 8), out.hidden_states[1][:, 1:])


def test_clip_vision_agrees_with_transformers_at_two_image_sizes(tmp_path):
    import transformers

    config = transformers.CLIPVisionConfig(**TINY, **WIDE, projection_dim=6)
    theirs = drawn(transformers.CLIPVisionModelWithProjection(config))
    model = CLIPVision(**OURS, projection=6)
    variables = on_device(load_clip_vision(model, saved(theirs, tmp_path)))
    for size in ((8, 8), (12, 20)):
        image, there = images("clip", *size)
        levels = model.apply(variables, image, train=False)
        out = theirs(there, interpolate_pos_encoding=True)
        close(levels["projected"][:, 0, 0], out.image_embeds)
        patches = levels["patches"].reshape(2, -1, 8)
        close(patches, out.last_hidden_state[:, 1:])


def test_clip_text_agrees_with_transformers_for_padded_instructions(tmp_path):
    import torch
    import transformers

    sizes = {**TINY, "intermediate_size": 32, **TEXT}
    ends = dict(eos_token_id=19, bos_token_id=18, pad_token_id=0)
    config = transformers.CLIPTextConfig(**sizes, **ends)
    theirs = drawn(transformers.CLIPTextModelWithProjection(config))
    tower = dict(vocab_size=20, width=8, num_layers=2, num_heads=2, length=7)
    path = saved(theirs, tmp_path)
    ids = np.array([[18, 3, 4, 19, 0], [18, 7, 19, 0, 0]], np.int32)
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], bool)
    out = theirs(torch.tensor(ids).long())
    pooled = CLIPText(**tower, projection=6)
    task = Task(jnp.asarray(ids), jnp.asarray(mask))
    tokens = pooled.apply(on_device(load_clip_text(pooled, path)), task, train=False)
    wanted = out.text_embeds / out.text_embeds.norm(dim=-1, keepdim=True)
    assert tokens.values.shape == (2, 1, 6) and tokens.mask.all()
    close(tokens.values[:, 0], wanted)
    every = CLIPText(**tower, pool=False)
    tokens = every.apply(on_device(load_clip_text(every, path)), task, train=False)
    close(tokens.values[1, :3], out.last_hidden_state[1, :3])
    assert not tokens.values[1, 3:].any() and not tokens.mask[1, 3:].any()


def test_both_clip_towers_are_found_in_a_file_of_the_whole_model(tmp_path):
    import transformers

    vision = transformers.CLIPVisionConfig(**TINY, **WIDE)
    text = transformers.CLIPTextConfig(**TINY, intermediate_size=32, **TEXT)
    config = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=6
    )
    path = saved(transformers.CLIPModel(config), tmp_path)
    found = load_clip_vision(CLIPVision(**OURS, projection=6), path)
    assert found["params"]["project"]["kernel"].shape == (8, 6)
    tower = CLIPText(vocab_size=20, width=8, num_layers=2, num_heads=2, length=7)
    with pytest.raises(ValueError, match=r"text_projection\.weight: \(6, 8\) in the"):
        load_clip_text(tower, path)


def test_no_words_give_a_masked_token():
    tower = CLIPText(20, 8, 1, 2, length=4, projection=6)
    task = Task(jnp.zeros((1, 4), jnp.int32), jnp.zeros((1, 4), bool))
    variables = tower.init(jax.random.key(0), task, train=False)
    tokens = tower.apply(variables, task, train=False)
    assert not tokens.mask.any() and not tokens.values.any()


def test_interpolation_agrees_with_pytorch():
    import torch

    table = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    grid = torch.tensor(table[1:].reshape(1, 3, 3, 4)).permute(0, 3, 1, 2)
    for size in ((5, 2), (3, 7)):
        wanted = torch.nn.functional.interpolate(grid, size, mode="bicubic")
        wanted = wanted.permute(0, 2, 3, 1).reshape(-1, 4)
        ours = interpolate_positions(jnp.asarray(table), size)
        np.testing.assert_allclose(ours[1:], wanted.numpy(), atol=1e-5)
        np.testing.assert_array_equal(ours[0], table[0])


def test_interpolation_weights_add_up_to_one():
    np.testing.assert_allclose(cubic_weights(7, 12).sum(1), np.ones(12), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "patch", "millions"),
    [("S", 16, 22.05), ("B", 16, 86.57), ("B", 32, 88.22), ("L", 14, 304.20)],
)
def test_published_sizes_have_the_published_numbers_of_parameters(
    size, patch, millions
):
    # As timm lists vit_{small,base,large}_patch*_224, with a classifier of 1000.
    model = ViT(patch=patch, **VIT_SIZES[size])
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(
        lambda rng, image: model.init(rng, image, train=False),
        jax.random.key(0),
        image,
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert round((count + 1000 * (model.width + 1)) / 1e6, 2) == millions


def test_images_that_patches_do_not_fit_are_refused():
    model = ViT(**OURS)
    with pytest.raises(ValueError, match=r"10x8.*multiples of patch=4"):
        jax.eval_shape(
            lambda: model.init(jax.random.key(0), jnp.zeros((1, 10, 8, 3)), train=False)
        )
