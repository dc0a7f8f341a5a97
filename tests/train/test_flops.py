"""Operations counted from the program, against hand counts and XLA's own."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch, policy_config
from vla_jax.models.build import build
from vla_jax.models.transformer import Transformer
from vla_jax.train.flops import as_written, count_flops, peak_flops
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.step import init_variables, loss_gradient


def test_a_product_counts_twice_its_multiplications():
    a, b = jnp.ones((5, 2, 3)), jnp.ones((5, 3, 4))
    assert count_flops(jnp.matmul, a, b) == 2 * 5 * 2 * 3 * 4
    assert count_flops(lambda a: jnp.sin(a) + 1, a) == 0


def test_a_loop_counts_as_often_as_it_runs():
    w = jnp.ones((4, 4))

    def run(x):
        body = jax.checkpoint(lambda x, _: (x @ w, None))
        return jax.lax.scan(body, x, None, length=7)[0]

    assert count_flops(jax.jit(run), jnp.ones((2, 4))) == 7 * 2 * 2 * 4 * 4


def test_a_loop_of_unknown_length_is_refused():
    def run(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="as often as the data says"):
        count_flops(run, jnp.ones((2, 2)))
    # Without a product inside there is nothing to count.
    assert count_flops(lambda x: jax.lax.while_loop(jnp.all, jnp.sin, x), 1.0) == 0


def test_a_convolution_counts_the_pixels_that_a_kernel_meets():
    conv = nn.Conv(6, (3,), strides=(2,), padding=((1, 1),))
    x = jnp.ones((2, 5, 4))  # outputs at -1, 1 and 3: 2, 3 and 2 pixels
    params = conv.init(jax.random.key(0), x)
    assert count_flops(conv.apply, params, x) == 2 * 2 * (2 + 3 + 2) * 4 * 6


def layer_flops(n, d, hidden):
    """A multiply-add each, by hand: q k v out, scores and their use, the perceptron."""
    return 2 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * hidden)


def test_a_transformer_counts_as_by_hand():
    x, mask = jnp.ones((3, 5, 8)), jnp.ones((1, 5, 5), bool)
    expected = 3 * 2 * layer_flops(5, 8, 16)  # batch, layers
    for scan in (False, True):
        model = Transformer(2, 2, 16, scan=scan, remat="full")
        params = model.init(jax.random.key(0), x, mask, train=False)
        forward = functools.partial(model.apply, train=False)
        assert count_flops(forward, params, x, mask) == expected

        def loss(params, forward):
            return forward(params, x, mask).sum()

        # The gradient does the forward pass, and twice as much again: the scales of
        # the first norm need the gradient of what q, k and v read.
        written = functools.partial(as_written(model).apply, train=False)
        gradient = jax.grad(functools.partial(loss, forward=written))
        assert count_flops(gradient, params) == 3 * expected
        # What is computed again would count without `as_written`.
        again = jax.grad(functools.partial(loss, forward=forward))
        assert count_flops(again, params) > 3 * expected


@pytest.fixture(scope="module")
def policy():
    config = policy_config()
    config["image"]["shared"] |= dict(widths=(32, 32), strides=(2,))
    config["tokens"]["shared"]["width"] = 64
    config["text"] |= dict(num_layers=0, width=64)
    config["trunk"] |= dict(width=64, mlp_width=256, num_heads=4)
    batch = make_batch(batch=4)
    model = build(config)
    draw = functools.partial(init_variables, model, {})
    return model, batch, jax.eval_shape(draw, batch, jax.random.key(0))


def gradient_of(model, variables, freeze=()):
    optimizer = make_optimizer(variables, 1, freeze, learning_rate=0.1)
    return functools.partial(loss_gradient, model, optimizer, {})


RNGS = {"noise": jax.random.key(0), "dropout": jax.random.key(1)}


def test_the_count_agrees_with_that_of_xla(policy):
    model, batch, variables = policy
    gradient = gradient_of(model, variables)
    counted = count_flops(gradient, variables, batch, RNGS)
    lowered = jax.jit(gradient).lower(variables, batch, RNGS)
    # XLA adds what is element-wise: some more.
    ratio = lowered.cost_analysis()["flops"] / counted
    assert 1.0 <= ratio < 1.1


def test_frozen_parts_are_not_differentiated(policy):
    model, batch, variables = policy
    whole = count_flops(gradient_of(model, variables), variables, batch, RNGS)
    frozen = gradient_of(model, variables, ("(?!head).*",))
    part = count_flops(frozen, variables, batch, RNGS)

    def forward(variables):
        options = dict(train=True, rngs=RNGS, method="loss")
        return model.apply(variables, batch, **options)[0]

    alone = count_flops(forward, variables)
    assert alone < part < 1.05 * alone < whole
    assert 2.5 * alone < whole <= 3 * alone


def test_a_count_changes_nothing_but_how_a_model_is_computed(policy):
    model = policy[0]
    trunk = model.trunk.clone(remat="full", attention_kernel="cudnn")
    written = as_written(model.clone(trunk=trunk))
    assert written == model
    np.testing.assert_equal(written.trunk.width, 64)


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("cpu", None),
    ],
)
def test_the_peak_is_that_of_the_longest_name(kind, expected):
    assert peak_flops(kind) == expected
    assert peak_flops(kind, 5.0) == 5.0
