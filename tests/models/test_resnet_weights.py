"""What a weight file may hold, and what is said where it does not fit."""

import numpy as np
import pytest

from vla_jax.models.resnet import ResNet
from vla_jax.models.resnet_weights import load_resnet, resnet_names

SMALL = ResNet(width=16, last="layer1")


def state_dict(model=SMALL, convention="torchvision"):
    """Zeros but for the kernels, under the names of a convention."""
    from vla_jax.models.resnet_weights import _shapes

    rng, tensors = np.random.default_rng(0), {}
    for key, name in resnet_names(model, convention).items():
        value = rng.standard_normal(_shapes(model)[key]).astype(np.float32)
        is_kernel = key[-1] == "kernel"
        tensors[name] = value.transpose(3, 2, 0, 1) if is_kernel else value
    return tensors


def write(path, tensors):
    import torch

    content = {k: torch.from_numpy(np.array(v)) for k, v in tensors.items()}
    torch.save(content, path)
    return path


def test_names_of_torchvision_are_those_of_its_files():
    names = set(resnet_names(ResNet(), "torchvision").values())
    assert len(names) == 20 * 5  # 20 convolutions, each with a norm of four arrays
    assert {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv2.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.running_mean",
        "layer4.1.bn2.bias",
    } <= names
    assert "layer1.0.downsample.0.weight" not in names
    wide = set(resnet_names(ResNet(depth=50), "torchvision").values())
    assert {"layer1.0.downsample.0.weight", "layer3.5.conv3.weight"} <= wide


def test_both_conventions_give_the_same_weights(tmp_path):
    here = load_resnet(SMALL, write(tmp_path / "a.pth", state_dict()))
    other = state_dict(convention="transformers")
    there = load_resnet(SMALL, write(tmp_path / "b.pth", other))
    kernel = here["params"]["layer1_0"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 16, 16)
    np.testing.assert_array_equal(
        kernel, there["params"]["layer1_0"]["conv1"]["kernel"]
    )
    np.testing.assert_array_equal(
        here["constants"]["stem_norm"]["var"], there["constants"]["stem_norm"]["var"]
    )


def test_classifier_counters_prefix_and_later_layers_may_be_there(tmp_path):
    tensors = {f"resnet.{name}": value for name, value in state_dict().items()}
    tensors["resnet.bn1.num_batches_tracked"] = np.array(7)
    tensors["resnet.fc.weight"] = np.zeros((10, 16), np.float32)
    tensors["resnet.layer3.0.conv1.weight"] = np.zeros((1, 1, 3, 3), np.float32)
    load_resnet(SMALL, write(tmp_path / "a.pth", tensors))


def test_missing_unexpected_and_misshaped_keys_are_named(tmp_path):
    tensors = state_dict()
    del tensors["layer1.1.bn2.bias"]
    tensors["layer1.1.extra.weight"] = np.zeros(3, np.float32)
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :, :3, :3]
    with pytest.raises(ValueError) as error:
        load_resnet(SMALL, write(tmp_path / "a.pth", tensors))
    message = str(error.value)
    assert "missing ['layer1.1.bn2.bias']" in message
    assert "unexpected ['layer1.1.extra.weight']" in message
    assert "conv1.weight: (3, 3, 3, 16) in the file, (7, 7, 3, 16) needed" in message


def test_batch_norm_weights_do_not_pass_for_group_norm(tmp_path):
    path = write(tmp_path / "a.pth", state_dict())
    with pytest.raises(ValueError, match=r"norm='group'.*unexpected .*running_mean"):
        load_resnet(ResNet(width=16, last="layer1", norm="group"), path)


def test_a_file_of_another_model_is_refused_with_some_of_its_names(tmp_path):
    path = write(tmp_path / "a.pth", {"blocks.0.weight": np.zeros(2)})
    with pytest.raises(ValueError, match=r"neither torchvision's .*blocks\.0\.weight"):
        load_resnet(SMALL, path)
