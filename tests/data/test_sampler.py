"""The order of the samples: bijective, exact, and a function of the seed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_jax.data.sampler import choose, dealt, hash_numbers, permute, sample


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63))
def test_permute_is_a_bijection_for_any_size(n, seed):
    np.testing.assert_array_equal(np.sort(permute(np.arange(n), n, seed)), np.arange(n))


@pytest.mark.parametrize("n", range(1, 40))
def test_permute_is_a_bijection_for_small_sizes(n):
    for seed in range(5):
        assert sorted(permute(np.arange(n), n, seed)) == list(range(n))


@given(n=st.integers(1, 2**60), seed=st.integers(-(2**63), 2**63), data=st.data())
def test_permute_stays_inside_huge_ranges_without_collisions(n, seed, data):
    i = np.unique(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=50)))
    places = permute(i, n, seed)
    assert places.min() >= 0 and places.max() < n
    assert len(np.unique(places)) == len(i)


def test_permute_is_fixed_for_ever():
    # Resuming an old run needs the same order from every later version.
    np.testing.assert_array_equal(
        permute(np.arange(10), 10, 7), [7, 4, 2, 5, 6, 8, 3, 1, 0, 9]
    )


def test_permute_depends_on_every_bit_of_the_seed():
    base = permute(np.arange(1000), 1000, 0)
    for bit in range(64):
        other = permute(np.arange(1000), 1000, 1 << bit)
        assert np.mean(base == other) < 0.02


def test_permute_sends_every_place_everywhere_equally_often():
    n, seeds = 5, np.arange(20000)
    for place in range(n):
        counts = np.bincount(permute(np.full(20000, place), n, seeds), minlength=n)
        # Binomial with mean 4000 and deviation 57.
        assert np.all(np.abs(counts - 4000) < 285)


def test_permute_produces_all_orders_of_three_equally_often():
    seeds = np.arange(12000)[:, None]
    orders = permute(np.tile(np.arange(3), (12000, 1)), 3, np.tile(seeds, (1, 3)))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.all(np.abs(counts - 2000) < 205)


def test_permute_mixes_neighbors():
    places = permute(np.arange(100_000), 100_000, 3)
    correlation = np.corrcoef(places[:-1], places[1:])[0, 1]
    assert abs(correlation) < 0.02


def test_permute_refuses_places_outside():
    with pytest.raises(ValueError, match=r"range\(n\)"):
        permute(np.array([5]), 5, 0)


weight_lists = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-3, 1e3)), min_size=1, max_size=9
).filter(any)


@given(weights=weight_lists, count=st.integers(1, 400))
def test_choose_numbers_the_samples_of_every_data_set_from_zero(weights, count):
    dataset, position = choose(np.arange(count), weights)
    for number, weight in enumerate(weights):
        mine = position[dataset == number]
        np.testing.assert_array_equal(mine, np.arange(len(mine)))
        share = count * weight / sum(weights)
        depth = int(np.ceil(np.log2(len(weights))))
        assert abs(len(mine) - share) <= depth + 1e-6
        assert weight > 0 or len(mine) == 0


@given(weights=weight_lists, start=st.integers(0, 2**61), count=st.integers(1, 50))
def test_choose_needs_no_history(weights, start, count):
    together = choose(start + np.arange(count), weights)
    alone = [choose(np.array([start + i]), weights) for i in range(count)]
    np.testing.assert_array_equal(together[0], np.concatenate([d for d, _ in alone]))
    np.testing.assert_array_equal(together[1], np.concatenate([p for _, p in alone]))


def test_choose_deals_one_to_three_value_by_value():
    dataset, position = choose(np.arange(8), [1, 3])
    np.testing.assert_array_equal(dataset, [1, 1, 1, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(position, [0, 1, 2, 0, 3, 4, 5, 1])


def test_choose_never_loses_a_tiny_weight():
    dataset, _ = choose(np.arange(2**32 - 1, 2**32 + 1), [1e-30, 1.0])
    assert 0 in dataset


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [np.nan], [np.inf, 1], []])
def test_choose_refuses_weights_without_meaning(weights):
    with pytest.raises(ValueError, match="weights"):
        choose(np.arange(3), weights)


@settings(max_examples=50)
@given(
    num_hosts=st.integers(1, 4),
    share=st.integers(1, 5),
    step=st.integers(0, 10**9),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    seed=st.integers(0, 2**40),
)
def test_hosts_together_load_the_batch_of_one_host(num_hosts, share, step, sizes, seed):
    batch = {
        "seed": seed,
        "batch_size": num_hosts * share,
        "sizes": sizes,
        "weights": [1.0] * len(sizes),
    }
    whole = sample(step, **batch)
    parts = [
        sample(step, **batch, host=host, num_hosts=num_hosts)
        for host in range(num_hosts)
    ]
    np.testing.assert_array_equal(whole[0], np.concatenate([d for d, _ in parts]))
    np.testing.assert_array_equal(whole[1], np.concatenate([s for _, s in parts]))


@settings(max_examples=50)
@given(
    share=st.integers(1, 3),
    start=st.integers(0, 10**9),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=5),
    weights=st.lists(st.floats(0.01, 10), min_size=5, max_size=5),
    changes=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=6),
    seed=st.integers(0, 2**40),
)
def test_the_number_of_hosts_may_change_at_any_batch_and_nothing_else_does(
    share, start, sizes, weights, changes, seed
):
    batch = {
        "seed": seed,
        "batch_size": 8 * share,
        "sizes": sizes,
        "weights": weights[: len(sizes)],
    }
    expected = sample(start + np.arange(len(changes)), **batch)
    for number, num_hosts in enumerate(changes):
        parts = [
            sample(start + number, **batch, host=host, num_hosts=num_hosts)
            for host in range(num_hosts)
        ]
        for together, whole in zip(zip(*parts, strict=True), expected, strict=True):
            np.testing.assert_array_equal(np.concatenate(together), whole[number])


@settings(max_examples=50)
@given(
    size=st.integers(8, 60),
    num_hosts=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 99),
)
def test_in_an_epoch_no_two_hosts_load_the_same_sample(size, num_hosts, seed):
    batch = {"seed": seed, "batch_size": 8, "sizes": [size], "weights": [1.0]}
    steps = np.arange(size // 8)
    hosts = [
        sample(steps, **batch, host=host, num_hosts=num_hosts)[1]
        for host in range(num_hosts)
    ]
    loaded = np.concatenate(hosts, axis=None)
    assert len(np.unique(loaded)) == len(loaded) == 8 * len(steps)


@settings(max_examples=50)
@given(size=st.integers(1, 60), batch_size=st.integers(1, 7), seed=st.integers(0, 99))
def test_every_epoch_covers_every_sample_once(size, batch_size, seed):
    steps = -(-3 * size // batch_size)
    order = np.concatenate(
        [
            sample(step, seed=seed, batch_size=batch_size, sizes=[size], weights=[1.0])[
                1
            ]
            for step in range(steps)
        ]
    )
    for epoch in range(3):
        seen = order[epoch * size : (epoch + 1) * size]
        np.testing.assert_array_equal(np.sort(seen), np.arange(size))


def test_mixed_data_sets_keep_their_own_epochs():
    sizes, weights = [3, 10], [1.0, 2.0]
    pairs = [
        sample(s, seed=1, batch_size=6, sizes=sizes, weights=weights) for s in range(10)
    ]
    dataset = np.concatenate([d for d, _ in pairs])
    number = np.concatenate([s for _, s in pairs])
    small, large = number[dataset == 0], number[dataset == 1]
    for start in range(0, 18, 3):
        assert sorted(small[start : start + 3]) == [0, 1, 2]
    for start in range(0, 40, 10):
        assert sorted(large[start : start + 10]) == list(range(10))


def test_epochs_and_seeds_differ():
    first = sample(0, seed=0, batch_size=100, sizes=[100], weights=[1.0])[1]
    second = sample(1, seed=0, batch_size=100, sizes=[100], weights=[1.0])[1]
    other = sample(0, seed=1, batch_size=100, sizes=[100], weights=[1.0])[1]
    assert np.mean(first == second) < 0.1
    assert np.mean(first == other) < 0.1


def test_many_steps_at_once_are_the_same_as_one_by_one():
    batch = {"seed": 3, "batch_size": 4, "sizes": [7, 9], "weights": [1.0, 2.0]}
    dataset, number = sample(np.arange(5, 15), **batch, host=1, num_hosts=2)
    for row, step in enumerate(range(5, 15)):
        one = sample(step, **batch, host=1, num_hosts=2)
        np.testing.assert_array_equal(dataset[row], one[0])
        np.testing.assert_array_equal(number[row], one[1])


def test_dtypes_are_the_promised_ones():
    dataset, number = sample(3, seed=0, batch_size=4, sizes=[5, 6], weights=[1, 1])
    assert dataset.dtype == np.int32 and number.dtype == np.int64
    assert dataset.shape == number.shape == (4,)


def test_uneven_hosts_missing_hosts_and_empty_data_sets_are_named():
    batch = {"seed": 0, "sizes": [5, 0], "weights": [1.0, 0.0]}
    with pytest.raises(ValueError, match="5 samples cannot be divided among 2 hosts"):
        sample(0, batch_size=5, num_hosts=2, **batch)
    with pytest.raises(ValueError, match="Host 2 does not exist among 2"):
        sample(0, batch_size=4, num_hosts=2, host=2, **batch)
    with pytest.raises(ValueError, match=r"Data set 1 has weight 2\.0 but no sample"):
        sample(0, seed=0, batch_size=4, sizes=[5, 0], weights=[1.0, 2.0])


def test_hash_depends_on_the_order_of_its_numbers():
    assert hash_numbers(1, 2) != hash_numbers(2, 1)
    assert len(np.unique(hash_numbers(0, np.arange(1000)))) == 1000


@pytest.mark.parametrize("weights", [(1.0,), (0.2, 0.5, 0.3), (0, 3, 0, 1e-9, 2)])
def test_dealt_counts_what_choose_has_given_out(weights):
    dataset, _ = choose(np.arange(300), weights)
    for count in (0, 1, 7, 300):
        expected = np.bincount(dataset[:count], minlength=len(weights))
        np.testing.assert_array_equal(dealt(count, weights), expected)
