"""ResNet against transformers' on random weights, and its variants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.models.build import build
from vla_jax.models.resnet import LEVELS, ResNet
from vla_jax.models.resnet_weights import load_resnet

# Statistics of ImageNet; the module undoes the policy's scaling to -1..1.
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def reference(depth):
    """transformers' ResNet with random weights and far from trivial statistics."""
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(depth)
    wide = depth == 50
    config = ResNetConfig(
        depths={18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}[depth],
        hidden_sizes=[256, 512, 1024, 2048] if wide else [64, 128, 256, 512],
        layer_type="bottleneck" if wide else "basic",
    )
    model = ResNetModel(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "normalization.bias")):
                tensor.normal_(0, 0.1)
            if name.endswith(("running_var", "normalization.weight")):
                tensor.uniform_(0.6, 1.2)
    return model


def torch_levels(model, image):
    """Every level [n h w d] of images -1..1 as transformers computes it."""
    import torch

    x = ((image + 1) / 2 - MEAN) / STD
    x = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        states = model(x, output_hidden_states=True).hidden_states
    return [state.numpy().transpose(0, 2, 3, 1) for state in states]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(depth, kind) -> the reference and a file with its weights."""
    import torch
    from safetensors.torch import save_file

    folder, made = tmp_path_factory.mktemp("weights"), {}
    for depth, kind in ((18, "pth"), (34, "safetensors"), (50, "pth")):
        model, path = reference(depth), folder / f"{depth}.{kind}"
        if kind == "pth":
            torch.save(model.state_dict(), path)
        else:
            save_file(model.state_dict(), path)
        made[depth] = model, path
    return made


@pytest.mark.parametrize(
    ("depth", "size"), [(18, (64, 96)), (18, (61, 75)), (34, (33, 47)), (50, (45, 38))]
)
def test_every_level_agrees_with_transformers_also_at_odd_sizes(files, depth, size):
    model, path = files[depth]
    image = np.random.default_rng(0).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    ours = ResNet(depth=depth)
    levels = jax.jit(lambda v, x: ours.apply(v, x, train=False))(
        load_resnet(ours, path), image
    )
    for name, expected in zip(LEVELS, torch_levels(model, image), strict=True):
        scale = np.abs(expected).max()
        assert levels[name].shape == expected.shape
        np.testing.assert_allclose(levels[name], expected, atol=1e-4 * scale)


def test_flax_same_padding_would_not_agree(files):
    """The trap is real: padding only the far side moves features at even sizes."""
    _, path = files[18]
    kernel = load_resnet(ResNet(), path)["params"]["stem_conv"]["kernel"]
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3))

    def convolve(padding):
        return jax.lax.conv_general_dilated(
            jnp.asarray(image, jnp.float32),
            kernel,
            (2, 2),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    same, both = convolve("SAME"), convolve(((3, 3), (3, 3)))
    assert same.shape == both.shape
    assert np.abs(same - both).max() > 0.1


def test_parameters_and_shapes_are_those_of_the_published_model():
    image = jax.ShapeDtypeStruct((1, 480, 640, 3), jnp.float32)
    model = ResNet()
    variables = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), image
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == 11_166_912  # the convolutions; norms are constants
    levels = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=False), variables, image
    )
    assert [levels[name].shape[1:] for name in LEVELS] == [
        (120, 160, 64),
        (120, 160, 64),
        (60, 80, 128),
        (30, 40, 256),
        (15, 20, 512),
    ]


def test_layers_after_the_last_wanted_level_do_not_exist():
    model = build(dict(name="resnet", norm="group", width=16, last="layer2"))
    image = jnp.zeros((1, 32, 32, 3))
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    assert set(variables) == {"params"}  # group normalization has no constants
    assert not any("layer3" in name for name in variables["params"])
    apply = functools.partial(model.apply, train=False, levels=("layer1", "stem"))
    levels = jax.eval_shape(apply, variables, image)
    assert set(levels) == {"stem", "layer1"}


def test_frozen_norms_are_no_parameters():
    model = ResNet(width=16, last="layer1")
    image = jnp.ones((1, 16, 16, 3))
    init = functools.partial(model.init, train=True)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    names = [
        str(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])
    ]
    assert names and all("conv" in name for name in names)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(depth=20), r"No ResNet of depth 20; choose one of \[18, 34, 50\]"),
        (dict(norm="batch"), "Unknown norm 'batch'"),
        (dict(last="layer5"), "Unknown level 'layer5'; did you mean"),
    ],
)
def test_impossible_fields_are_named_with_the_alternatives(fields, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**fields).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)


@pytest.mark.parametrize("norm", ["frozen", "group"])
def test_every_convolution_computes_in_bfloat16_on_parameters_of_float32(norm):
    image = jax.random.uniform(jax.random.key(1), (1, 32, 48, 3), minval=-1)
    exact, rough = (
        ResNet(depth=18, norm=norm, width=16, last="layer2", dtype=dtype)
        for dtype in ("float32", "bfloat16")
    )
    variables = exact.init(jax.random.key(0), image, train=False)

    def levels(variables):
        return rough.apply(variables, image, train=False)

    program = str(jax.make_jaxpr(levels)(variables))
    outputs = [line for line in program.splitlines() if "conv_general_dilated" in line]
    assert len(outputs) == 1 + 8 + 1  # the stem, two blocks a layer, one shortcut
    assert all(":bf16[" in line for line in outputs)
    expected = exact.apply(variables, image, train=False)
    for level, found in levels(variables).items():
        assert found.dtype == jnp.float32
        scale = np.abs(expected[level]).max()
        np.testing.assert_allclose(found, expected[level], atol=3e-2 * scale)
