"""Streaming statistics agree with numpy; normalization is invertible."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vla_jax.data.statistics import (
    Statistics,
    Streaming,
    action_mask,
    normalize,
    unnormalize,
)


def _stream(x, sizes=(7,)) -> Streaming:
    streaming, start, turn = Streaming(x.shape[1]), 0, 0
    while start < len(x):
        size = sizes[turn % len(sizes)]
        streaming.update(x[start : start + size])
        start, turn = start + size, turn + 1
    return streaming


def _assert_matches(stats: Statistics, x: np.ndarray):
    assert stats.count == len(x)
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(stats.std, x.std(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(stats.min, x.min(0))
    np.testing.assert_array_equal(stats.max, x.max(0))
    # The stated bound, and one rank for interpolation.
    slack = stats.quantile_error + 1 / len(x)
    for share, value in ((0.01, stats.q01), (0.99, stats.q99)):
        assert np.all((x < value).mean(0) <= share + slack)
        assert np.all((x <= value).mean(0) >= share - slack)


def test_few_values_are_exact():
    x = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    stats = _stream(x).finish()
    _assert_matches(stats, x.astype(np.float64))
    assert stats.quantile_error == 0
    np.testing.assert_allclose(stats.q01, np.quantile(x, 0.01, axis=0), rtol=1e-6)
    np.testing.assert_allclose(stats.q99, np.quantile(x, 0.99, axis=0), rtol=1e-6)


@pytest.mark.parametrize("sizes", [(100_000,), (5, 8192, 1777)])
def test_many_values_stay_within_the_stated_error(sizes):
    rng = np.random.default_rng(1)
    x = np.stack(
        [
            rng.normal(size=200_000),
            100 + rng.exponential(size=200_000) / 1000,  # a small spread far from zero
            np.arange(200_000),  # sorted
        ],
        axis=1,
    ).astype(np.float32)
    stats = _stream(x, sizes).finish()
    _assert_matches(stats, x.astype(np.float64))
    assert 0 < stats.quantile_error < 1e-3
    assert len(_stream(x, sizes).state()["samples"]) < 6 * 8192


def test_merged_parts_equal_one_pass():
    rng = np.random.default_rng(2)
    x = rng.normal(3, 2, size=(50_000, 2)).astype(np.float32)
    merged = Streaming(2)
    for part in np.split(x, [0, 10, 20_000, 20_001]):
        merged.merge(_stream(part, (999,)))
    _assert_matches(merged.finish(), x.astype(np.float64))
    assert merged.finish().quantile_error < 1e-3


def test_state_survives_a_file(tmp_path):
    x = np.random.default_rng(3).normal(size=(20_000, 2)).astype(np.float32)
    streaming = _stream(x[:9001])
    np.savez(tmp_path / "state.npz", **streaming.state())
    restored = Streaming.from_state(np.load(tmp_path / "state.npz"))
    for each in (streaming, restored):
        each.update(x[9001:])
    assert restored.finish().to_json() == streaming.finish().to_json()


def test_statistics_survive_json():
    stats = _stream(np.array([[1.0, 5.0], [2.0, 5.0]])).finish()
    restored = Statistics.from_json(json.loads(json.dumps(stats.to_json())))
    assert restored.to_json() == stats.to_json()
    assert restored.tiny.tolist() == [False, True]


def test_bad_values_are_refused():
    streaming = Streaming(2)
    with pytest.raises(ValueError, match=r"dimensions \[1\] are not finite"):
        streaming.update(np.array([[0, np.nan]]))
    with pytest.raises(ValueError, match=r"rows \[n, 2\].*\(3, 1\)"):
        streaming.update(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="of no values"):
        streaming.finish()
    with pytest.raises(ValueError, match="3 dimensions into 2"):
        streaming.merge(Streaming(3))


STATS = Statistics(
    count=4,
    mean=np.array([1.0, 0.0, 5.0]),
    std=np.array([2.0, 1.0, 0.0]),
    min=np.array([-3.0, -1.0, 5.0]),
    max=np.array([5.0, 3.0, 5.0]),
    q01=np.array([-1.0, 0.0, 5.0]),
    q99=np.array([3.0, 0.0, 5.0]),
    tiny=np.array([False, False, True]),
    quantile_error=0.0,
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mean_std", [[1.0, 3.0, 0.0]]),  # (3 - 1) / 2
        ("min_max", [[0.5, 1.0, 0.0]]),  # [-3, 5] to [-1, 1]
        ("quantile", [[1.0, 1.0, 0.0]]),  # q01 = q99 = 0 falls back to min and max
        ("none", [[3.0, 3.0, 5.0]]),
    ],
)
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_normalize_by_hand_and_back(kind, expected, array):
    x = array(np.array([[3.0, 3.0, 5.0]], np.float32))
    y = normalize(x, STATS, kind)
    np.testing.assert_allclose(y, expected)
    assert y.dtype == np.float32
    assert isinstance(y, type(x))
    np.testing.assert_allclose(unnormalize(y, STATS, kind), x)


@pytest.mark.parametrize("kind", ["mean_std", "min_max", "quantile", "none"])
def test_unnormalize_inverts_normalize(kind):
    x = np.random.default_rng(4).normal(size=(5, 6, 3)).astype(np.float32) * 10
    x[..., 2] = 5
    back = unnormalize(normalize(x, STATS, kind), STATS, kind)
    np.testing.assert_allclose(back, x, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("min_max_clipped", [[1.0, -1.0, 0.0]]), ("quantile_clipped", [[1.0, -1.0, 0.0]])],
)
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_clipped_kinds_stay_within_one(kind, expected, array):
    x = array(np.array([[9.0, -8.0, 5.0]], np.float32))
    np.testing.assert_allclose(normalize(x, STATS, kind), expected)
    inside = array(np.array([[0.0, 1.5, 5.0]], np.float32))
    plain = kind.removesuffix("_clipped")
    np.testing.assert_array_equal(
        normalize(inside, STATS, kind), normalize(inside, STATS, plain)
    )
    mask = np.array([False, True, True])
    assert normalize(x, STATS, kind, mask)[0, 0] == 9.0
    np.testing.assert_allclose(
        unnormalize(normalize(x, STATS, "min_max_clipped"), STATS, "min_max_clipped"),
        [[5.0, -1.0, 5.0]],
    )


def test_a_constant_becomes_zero_and_comes_back_as_its_mean():
    x = np.array([[0.0, 0.0, 77.0]], np.float32)
    for kind in ("mean_std", "min_max", "quantile"):
        assert normalize(x, STATS, kind)[0, 2] == 0
        assert unnormalize(normalize(x, STATS, kind), STATS, kind)[0, 2] == 5


def test_masked_dimensions_stay_as_they_are():
    x = np.array([[3.0, 3.0, 7.0]], np.float32)
    mask = np.array([True, False, False])
    y = normalize(x, STATS, "mean_std", mask)
    np.testing.assert_array_equal(y, [[1.0, 3.0, 7.0]])
    np.testing.assert_array_equal(unnormalize(y, STATS, "mean_std", mask), x)
    kinds = ("relative", "absolute", "gripper")
    assert action_mask(kinds).tolist() == [True, True, False]


def test_normalize_runs_inside_jit():
    x = np.array([[3.0, 3.0, 5.0]], np.float32)
    y = jax.jit(lambda x: normalize(x, STATS, "min_max"))(x)
    np.testing.assert_allclose(y, [[0.5, 1.0, 0.0]])


def test_unknown_normalization_lists_the_alternatives():
    with pytest.raises(ValueError, match=r"Unknown .* 'bounds'.*quantile"):
        normalize(np.zeros((1, 3)), STATS, "bounds")
    with pytest.raises(ValueError, match="Expected 3 dimensions"):
        normalize(np.zeros((1, 2)), STATS, "mean_std")
