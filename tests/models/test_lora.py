"""Adapters: they change nothing at first, merge exactly, and train alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_batch import make_batch, policy_config
from tests.train.toy import no_augment
from vla_jax.models.build import build_model
from vla_jax.models.lora import Lora, frozen_base, init_adapters, matrix_shape, merge
from vla_jax.train.optimizer import make_optimizer
from vla_jax.train.paths import leaf_paths
from vla_jax.train.step import init_state, init_variables, train_step

METADATA = dict(chunk=2, action_dim=3, vocab_size=8)
BATCH = make_batch()
FIELDS = dict(rank=2, alpha=4.0, train=["head/action"])


def config(**options):
    plain = policy_config()
    plain["text"]["num_layers"] = 0
    return {**plain, **options}


@pytest.fixture(scope="module")
def trained():
    """Model, optimizer, and the states before and after three steps."""
    model = build_model(config(lora=FIELDS), METADATA)
    root = jax.random.key(0)
    variables = jax.jit(functools.partial(init_variables, model, {}))(BATCH, root)
    optimizer = make_optimizer(
        variables, 3, frozen_base(model, variables), learning_rate=0.1
    )
    before = init_state(optimizer, variables, ema=False, frozen_dtype="bfloat16")
    step = jax.jit(functools.partial(train_step, model, optimizer, no_augment, {}, 0.0))
    after = before
    for _ in range(3):
        after, metrics = step(after, BATCH, root)
    return model, before, after, metrics


def sample(model, params):
    return model.apply(
        {"params": params},
        BATCH.observation,
        BATCH.task,
        jax.random.key(1),
        method="sample",
    )


def test_new_adapters_change_nothing(trained):
    model, before, _, _ = trained
    base = {key: value for key, value in before.params.items() if key != "lora"}
    plain = build_model(config(), METADATA)
    np.testing.assert_array_equal(sample(model, before.params), sample(plain, base))


def test_merged_equals_unmerged(trained):
    model, before, after, _ = trained
    plain = build_model(config(), METADATA)
    merged = merge(model.lora, after.params)
    assert "lora" not in merged
    found, expected = sample(plain, merged), sample(model, after.params)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(expected - sample(model, before.params)).max() > 0.05


def test_only_adapters_and_named_parts_train(trained):
    _, before, after, metrics = trained
    changed = {
        path
        for path, a, b in zip(
            leaf_paths(before.params),
            jax.tree.leaves(before.params),
            jax.tree.leaves(after.params),
            strict=True,
        )
        if np.any(a != b)
    }
    layer = "lora/trunk/transformer/layer_0"
    assert f"{layer}/attention/q/kernel/b" in changed
    assert f"{layer}/mlp_out/kernel/a" in changed
    assert {path.split("/")[0] for path in changed} == {"lora", "head"}
    assert {p for p in changed if p[:4] == "head"} == {
        "head/action/kernel",
        "head/action/bias",
    }
    assert np.isfinite(metrics["loss"])


def test_the_base_is_frozen_in_bfloat16_without_optimizer_state(trained):
    _, before, after, _ = trained
    kernel = after.params["trunk"]["transformer"]["layer_0"]["mlp_in"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    assert after.params["head"]["action"]["kernel"].dtype == jnp.float32
    moments = {
        path.removeprefix("trained/")
        for path in leaf_paths(before.opt_state)
        if "/" in path
    }
    assert {path.split("/")[0] for path in moments} == {"lora", "head"}
    assert {path for path in moments if path[:4] == "head"} == {
        "head/action/kernel",
        "head/action/bias",
    }


@pytest.mark.parametrize(
    "path, shape, expected",
    [
        ("attention/q/kernel", (8, 2, 4), ((), 8, 8)),
        ("attention/out/kernel", (2, 4, 6), ((), 8, 6)),
        ("mlp_in/kernel", (4, 16), ((), 4, 16)),
        ("layers/attention/q/kernel", (3, 8, 2, 4), ((3,), 8, 8)),
        ("layers/mlp_out/kernel", (3, 16, 4), ((3,), 16, 4)),
        ("stem/kernel", (3, 3, 4, 8), ((), 36, 8)),
    ],
)
def test_a_kernel_is_read_as_matrices(path, shape, expected):
    assert matrix_shape(path, shape) == expected


def test_an_adapter_adds_alpha_over_rank_times_its_product():
    rng = np.random.default_rng(0)
    kernel, a, b = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((2, 3, 4), (2, 3, 1), (2, 1, 4))
    )
    params = {
        "layers": {"mlp_in": {"kernel": kernel}},
        "lora": {"layers": {"mlp_in": {"kernel": {"a": a, "b": b}}}},
    }
    merged = merge(Lora(rank=1, alpha=3.0), params)["layers"]["mlp_in"]["kernel"]
    for number in range(2):
        np.testing.assert_allclose(
            merged[number],
            kernel[number] + 3 * np.outer(a[number, :, 0], b[number, 0]),
            rtol=1e-6,
        )


def test_scanned_layers_get_an_adapter_each():
    params = {"layers": {"attention": {"q": {"kernel": jnp.ones((3, 8, 2, 4))}}}}
    lora = Lora(rank=2, targets=(".*/q/kernel",))
    adapters = init_adapters(lora, params, jax.random.key(0))
    factors = adapters["layers"]["attention"]["q"]["kernel"]
    assert factors["a"].shape == (3, 8, 2) and factors["b"].shape == (3, 2, 8)
    assert not np.any(factors["b"]) and np.std(factors["a"]) > 0.1


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(rang=2), "Unknown key 'rang' in config.model.lora; did you mean 'rank'"),
        (dict(rank=0), "rank is 0; expected at least 1"),
    ],
)
def test_impossible_fields_are_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        build_model(config(lora=fields), METADATA)


def test_a_pattern_that_matches_nothing_is_an_error():
    params = {"head": {"kernel": jnp.ones((2, 2))}}
    with pytest.raises(ValueError, match=r"targets matches no kernel.*head/kernel"):
        init_adapters(Lora(targets=("trunk",)), params, jax.random.key(0))
    model = build_model(config(lora=dict(train=["heads"])), METADATA)
    with pytest.raises(ValueError, match=r"'heads' in model.lora.train matches no"):
        frozen_base(model, {"params": params})
    with pytest.raises(ValueError, match=r"have no adapters: expected 'lora' among"):
        merge(Lora(), params)
