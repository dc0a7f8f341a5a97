"""Which samples make batch `step`: a pure function of the seed, in constant memory.

The whole training run is one endless sequence of samples. Element `i` of it belongs to
the data set that `choose` names, and within that data set to place `position`, which
`permute` turns into a sample through a new permutation in every epoch. Nothing is
shuffled in memory and nothing has to be replayed: to resume is to go on counting, and
the state of the iterator is the number of the next batch.
"""

from collections.abc import Sequence

import numpy as np

_ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, as in SplitMix64
_ONE = 1 << 32  # probabilities are multiples of 2**-32, so that counting is exact


def permute(i: np.ndarray, n: np.ndarray | int, seed: np.ndarray | int) -> np.ndarray:
    """Looks up places of a pseudo-random permutation of `range(n)`.

    A generalized Feistel network (Black and Rogaway, 2002): the place is written as
    two digits `left < a` and `right < b` with `a * b >= n`, and in every round a keyed
    hash of one digit is added to the other, which can be undone and so is a bijection
    of `range(a * b)`. Results beyond `n` are sent round again until they fall inside;
    as `a * b - n < a`, which is about `sqrt(n)`, that is rare.

    Args:
      i: places, any shape, each in `range(n)`.
      n: size of the permutation, one number or one per place.
      seed: which permutation, one number or one per place.

    Returns:
      int64 of the shape of `i`, each in `range(n)`.

    Raises:
      ValueError: a place lies outside `range(n)`.
    """
    place = np.asarray(i, np.int64)
    shape, place = place.shape, place.reshape(-1)
    size = np.broadcast_to(np.asarray(n, np.int64), shape).reshape(-1)
    if np.any(place < 0) or np.any(place >= size):
        raise ValueError(
            f"permute got places {i} for permutations of size {n}; "
            "every place must lie in range(n)."
        )
    key = np.broadcast_to(_as_uint64(seed), shape).reshape(-1)
    a = np.ceil(np.sqrt(size)).astype(np.int64)
    b = -(-size // a)
    place = _feistel(place, a, b, key)
    outside = np.flatnonzero(place >= size)
    while outside.size:
        place[outside] = _feistel(place[outside], a[outside], b[outside], key[outside])
        outside = outside[place[outside] >= size[outside]]
    return place.reshape(shape)


def choose(i: np.ndarray, weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Deals the samples of a run out to data sets, in proportion to their weights.

    A binary tree over the data sets: of the first `i` samples that reach a node, the
    left child gets exactly `floor(i * p)`, so sample `i` goes left where that count is
    about to grow, and the count itself is the sample's number in the child. After any
    number of samples every data set is within the depth of the tree of its share.

    Args:
      i: sample numbers of the run, any shape, at least 0.
      weights: one per data set, at least 0, in any unit.

    Returns:
      data set, int32, and position, int64: how many earlier samples went to the same
      data set. Both of the shape of `i`.

    Raises:
      ValueError: weights that are negative, not finite, or without a positive one.
    """
    weights = np.asarray(weights, np.float64)
    valid = weights.ndim == 1 and np.all(np.isfinite(weights)) and np.all(weights >= 0)
    if not valid or not np.any(weights > 0):
        raise ValueError(
            f"Mixture weights must be finite, not negative and not all zero, "
            f"got {weights.tolist()}."
        )
    number = np.asarray(i, np.int64)
    dataset = np.zeros(number.shape, np.int32).reshape(-1)
    position = number.reshape(-1).copy()
    _deal(weights, 0, len(weights), slice(None), dataset, position)
    return dataset.reshape(number.shape), position.reshape(number.shape)


def sample(
    step: np.ndarray | int,
    *,
    seed: int,
    batch_size: int,
    sizes: Sequence[int],
    weights: Sequence[float],
    host: int = 0,
    num_hosts: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the samples of batch `step` that this host has to load.

    The hosts' parts, one after the other, are the batch that one host alone would load.
    Every data set runs through all of its samples before any of them comes again.

    Args:
      step: number of the batch, from 0; or an array of such numbers.
      seed: seed of the run.
      batch_size: samples in the batch over all hosts.
      sizes: number of samples of each data set.
      weights: share of each data set in the mixture, in any unit.
      host: number of this host.
      num_hosts: number of hosts.

    Returns:
      data set, int32 [b], and sample in it, int64 [b]; `b` is `batch_size / num_hosts`.
      For an array of steps its shape stands before `b`.

    Raises:
      ValueError: a batch that hosts cannot share evenly, a host that does not exist, or
        a weight for a data set without samples.
    """
    share = host_share(batch_size, host, num_hosts)
    for number, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        if weight > 0 and size < 1:
            raise ValueError(
                f"Data set {number} has weight {weight} but no samples; "
                "set its weight to 0 or leave it out."
            )
    first = np.asarray(step, np.int64)[..., None] * batch_size + host * share
    dataset, position = choose(first + np.arange(share), weights)
    size = np.asarray(sizes, np.int64)[dataset]
    epoch, place = np.divmod(position, size)
    return dataset, permute(place, size, hash_numbers(seed, dataset, epoch))


def host_share(batch_size: int, host: int, num_hosts: int) -> int:
    """Samples of a batch that one host loads.

    Raises:
      ValueError: a batch that hosts cannot share evenly, or an impossible host.
    """
    if batch_size % num_hosts:
        raise ValueError(
            f"A batch of {batch_size} samples cannot be divided among {num_hosts} "
            f"hosts; choose a multiple of {num_hosts}."
        )
    if not 0 <= host < num_hosts:
        raise ValueError(f"Host {host} does not exist among {num_hosts} hosts.")
    return batch_size // num_hosts


def dealt(count: int, weights: Sequence[float]) -> np.ndarray:
    """How many of the first `count` samples `choose` gives to each data set, int64."""
    weights = np.asarray(weights, np.float64)
    shares = np.zeros(len(weights), np.int64)
    _share(weights, 0, len(weights), np.array([count], np.int64), shares)
    return shares


def hash_numbers(*numbers: np.ndarray | int) -> np.ndarray:
    """Hashes integers into one uint64, elementwise with broadcasting, same everywhere.

    Order matters, and `(seed, 1)` tells nothing about `(seed, 2)`.
    """
    state = np.zeros(1, np.uint64)
    for number in numbers:
        state = _scramble((state + _as_uint64(number)) * _GOLDEN)
    return state


def _feistel(place, a, b, key):
    """One pass of the network over places below `a * b`."""
    a, b = a.astype(np.uint64), b.astype(np.uint64)
    rounds = np.arange(1, _ROUNDS + 1, dtype=np.uint64)[:, None]
    keys = _scramble(key + rounds * _GOLDEN)
    right, left = np.divmod(place.astype(np.uint64), a)
    for number in range(0, _ROUNDS, 2):
        left = (left + _round(right, keys[number])) % a
        right = (right + _round(left, keys[number + 1])) % b
    return (right * a + left).astype(np.int64)


def _round(digit, key):
    """Keyed hash of one digit to 32 bits; the shift between makes it nonlinear."""
    x = (digit + key) * np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0x94D049BB133111EB)
    return x >> np.uint64(32)


def _scramble(x):
    """Finalizer of SplitMix64 (Steele et al., 2014): a fixed bijection of 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _as_uint64(number) -> np.ndarray:
    """Integers modulo 2**64, as an array so that arithmetic wraps without warnings."""
    if isinstance(number, int):
        return np.array([number % (1 << 64)], np.uint64)
    return np.atleast_1d(number).astype(np.uint64)


def _deal(weights, low, high, rows, dataset, position):
    """Deals the samples in `rows`, numbered by `position`, to data sets low..high-1."""
    if high - low == 1:
        dataset[rows] = low
        return
    middle = (low + high) // 2
    probability = _probability(weights, low, middle, high)
    if probability in (0, _ONE):
        low, high = (middle, high) if probability == 0 else (low, middle)
        _deal(weights, low, high, rows, dataset, position)
        return
    number = position[rows]
    before = _times(number, probability)
    goes_left = _times(number + 1, probability) > before
    position[rows] = np.where(goes_left, before, number - before)
    rows = np.arange(len(position)) if isinstance(rows, slice) else rows
    _deal(weights, low, middle, rows[goes_left], dataset, position)
    _deal(weights, middle, high, rows[~goes_left], dataset, position)


def _share(weights, low, high, count, shares):
    """Writes how many of `count` samples each of the data sets low..high-1 gets."""
    if high - low == 1:
        shares[low] = count[0]
        return
    middle = (low + high) // 2
    left = _times(count, _probability(weights, low, middle, high))
    _share(weights, low, middle, left, shares)
    _share(weights, middle, high, count - left, shares)


def _probability(weights, low, middle, high) -> int:
    """Share of low..middle-1 in the samples of low..high-1, in units of `1 / _ONE`."""
    left, right = weights[low:middle].sum(), weights[middle:high].sum()
    if left == 0 or right == 0:
        return 0 if left == 0 else _ONE
    # A data set with any weight at all is not rounded away.
    return min(max(round(left / (left + right) * _ONE), 1), _ONE - 1)


def _times(number, probability):
    """`floor(number * probability / 2**32)`, exact for numbers below 2**62."""
    number, probability = number.astype(np.uint64), np.uint64(probability)
    high, low = number >> np.uint64(32), number & np.uint64(_ONE - 1)
    return (high * probability + (low * probability >> np.uint64(32))).astype(np.int64)
