"""Statistics of a mixture, against numbers by hand and one pass over all values."""

import dataclasses

import numpy as np
import pytest

from tests import fake
from vla_jax.data.source import open_source
from vla_jax.data.statistics import Statistics, Streaming
from vla_jax.data.statistics_merge import merge_statistics


def _stream(*values) -> Streaming:
    streaming = Streaming(1)
    streaming.update(np.array(values, np.float64).reshape(-1, 1))
    return streaming


def _stats(**changes) -> Statistics:
    fields = {
        "count": 10,
        "mean": np.array([0.0]),
        "std": np.array([1.0]),
        "min": np.array([-4.0]),
        "max": np.array([4.0]),
        "q01": np.array([-2.0]),
        "q99": np.array([2.0]),
        "tiny": np.array([False]),
        "quantile_error": 0.0,
    }
    return Statistics(**(fields | changes))


def test_moments_by_hand():
    # 0 and 2 three times as often as 10: mean 3.25; squares (0 + 4) * 3/8 + 100 / 4
    merged = merge_statistics([_stream(0, 2), _stream(10)], [3, 1])
    assert merged.count == 3
    np.testing.assert_allclose(merged.mean, [3.25])
    np.testing.assert_allclose(merged.std, [np.sqrt(26.5 - 3.25**2)])
    assert (merged.min.tolist(), merged.max.tolist()) == ([0.0], [10.0])


def test_one_part_stays_what_it_is():
    x = np.random.default_rng(0).normal(size=(3000, 2))
    streaming = Streaming(2)
    streaming.update(x)
    merged, alone = (
        merge_statistics([streaming]).to_json(),
        streaming.finish().to_json(),
    )
    for key in alone:
        np.testing.assert_allclose(merged[key], alone[key], rtol=1e-12)
    again = merge_statistics([streaming.finish()], [7.0])
    np.testing.assert_allclose(again.q01, streaming.finish().q01)
    assert again.quantile_error == 0


def test_quantiles_of_two_constants_by_hand():
    parts = [_stream(0, 0, 0), _stream(1, 1)]
    rare = merge_statistics(parts, [0.995, 0.005])  # only 0.5 % are ones
    assert (rare.q01.tolist(), rare.q99.tolist()) == ([0.0], [0.0])
    common = merge_statistics(parts, [0.98, 0.02])
    assert (common.q01.tolist(), common.q99.tolist()) == ([0.0], [1.0])


def test_sketches_give_the_quantiles_of_a_weighted_draw():
    rng = np.random.default_rng(1)
    wide, narrow = rng.normal(0, 1, 60_000), rng.normal(5, 0.1, 20_000)
    merged = merge_statistics([_stream(*wide), _stream(*narrow)], [0.25, 0.75])
    # As often as the weights say: the narrow one nine times.
    drawn = np.concatenate([wide, np.tile(narrow, 9)])
    slack = merged.quantile_error + 1e-4
    for share, value in ((0.01, merged.q01), (0.99, merged.q99)):
        assert abs((drawn <= value).mean() - share) <= slack
    assert slack < 1e-3
    np.testing.assert_allclose(merged.mean, drawn.mean(), rtol=1e-9)
    np.testing.assert_allclose(merged.std, drawn.std(), rtol=1e-9)


def test_counts_weigh_as_one_pass():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=3000), rng.exponential(size=1000)
    merged, one = merge_statistics([_stream(*a), _stream(*b)]), _stream(*a, *b).finish()
    np.testing.assert_allclose(merged.mean, one.mean)
    np.testing.assert_allclose(merged.std, one.std)
    np.testing.assert_allclose([merged.q01, merged.q99], [one.q01, one.q99], atol=0.02)


def test_finished_statistics_merge_along_straight_lines():
    # Shifted by 10: F = (F1 + F2) / 2. At -2 F1 is 1 %, so F is 0.5 %; it reaches 1 %
    # where F1 is 2 %: 1/98 of the way from -2 to 2. Likewise 12 minus that for 99 %.
    far = _stats(**{k: getattr(_stats(), k) + 10 for k in ("mean", "min", "max")})
    far = dataclasses.replace(far, q01=np.array([8.0]), q99=np.array([12.0]))
    merged = merge_statistics([_stats(), far])
    np.testing.assert_allclose(merged.q01, [-2 + 4 / 98])
    np.testing.assert_allclose(merged.q99, [12 - 4 / 98])
    assert merged.mean.tolist() == [5.0]
    np.testing.assert_allclose(merged.std, [np.sqrt(26)])
    # Between its 1 % and 99 % the first is known only as a line: 2 % could be 99 %.
    np.testing.assert_allclose(merged.quantile_error, 0.5 * 0.97)


def test_what_a_part_does_not_know_stays_unknown():
    nan = np.array([np.nan])
    no_ends = merge_statistics([_stats(min=nan, max=nan), _stats()])
    assert np.isnan(no_ends.min).all()
    np.testing.assert_allclose(no_ends.q01, [-2.0])
    no_quantiles = merge_statistics([_stats(q01=nan, q99=nan), _stats()])
    assert np.isnan(no_quantiles.q99).all()
    assert np.isnan(no_quantiles.quantile_error)
    assert no_quantiles.max.tolist() == [4.0]
    # a part that is never drawn does not matter
    assert merge_statistics([_stats(q01=nan), _stats()], [0, 1]).q01.tolist() == [-2.0]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"same number of dimensions.*\[1, 2\]"):
        merge_statistics([_stream(1), _stats(mean=np.zeros(2))])
    with pytest.raises(ValueError, match="give weights where a count is 0"):
        merge_statistics([_stream(1), _stats(count=0)])
    for weights in ([1], [1, -1], [0, 0], [1, np.nan]):
        with pytest.raises(ValueError, match="expected 2 finite numbers"):
            merge_statistics([_stream(1), _stream(2)], weights)


def test_a_mixture_can_share_its_statistics(tmp_path):
    first = fake.write_dataset(tmp_path / "a", lengths=(3, 5), seed=0)
    second = fake.write_dataset(tmp_path / "b", lengths=(4,), seed=1)
    config = fake.data_config(first, second, share_statistics=True)
    config["datasets"][1]["weight"] = 3.0
    source = open_source(config)
    ours, theirs = source.statistics
    assert ours == theirs
    a, b = (index.statistics["proprio"] for index in source.indexes)
    np.testing.assert_allclose(ours["proprio"].mean, 0.25 * a.mean + 0.75 * b.mean)
    assert ours["proprio"].quantile_error == 0
    stored = source.metadata()["datasets"][1]["statistics"]["action"]
    assert stored == ours["action"].to_json()
