"""Statistics of a data set in one pass, and the normalization that uses them.

Quantiles come from a mergeable sketch that also states how wrong they can be: levels of
samples in which one sample of level `k` stands for `2**k` values (Manku, Rajagopalan
and Lindsay, 1998). Up to 8,192 values they are exact.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from vla_jax.names import did_you_mean

NORMALIZATIONS = (
    "mean_std",
    "min_max",
    "min_max_clipped",
    "none",
    "quantile",
    "quantile_clipped",
)
TINY = 1e-5  # ranges below this, relative to max(1, |mean|), count as constant

_CAPACITY = 8192  # samples per level and dimension
_FIELDS = ("mean", "std", "min", "max", "q01", "q99")
_CLIPPED = "_clipped"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics per dimension.

    What other libraries do not state is NaN (None in JSON), an unknown count 0.

    Attributes:
        count: number of rows seen.
        mean, std, min, max, q01, q99: float64 `[d]`; q01 and q99 are the 1 % and 99 %
            quantiles.
        tiny: bool `[d]`, True where the values hardly differ.
        quantile_error: bound on the error of a quantile's rank, as a share of `count`.
    """

    count: int
    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    q01: np.ndarray
    q99: np.ndarray
    tiny: np.ndarray
    quantile_error: float

    def to_json(self) -> dict:
        """Plain lists and numbers; `from_json` gives the same statistics back."""
        fields = {key: _numbers(getattr(self, key)) for key in _FIELDS}
        return {
            "count": self.count,
            **fields,
            "tiny": self.tiny.tolist(),
            "quantile_error": _numbers(np.array(self.quantile_error)),
        }

    @classmethod
    def from_json(cls, content: Mapping) -> "Statistics":
        arrays = {key: np.array(content[key], np.float64) for key in _FIELDS}
        return cls(
            count=int(content["count"]),
            tiny=np.array(content["tiny"], bool),
            quantile_error=float(np.array(content["quantile_error"], np.float64)),
            **arrays,
        )


class Streaming:
    """Statistics of rows that come in pieces, in constant memory.

    Moments are merged by Chan's formula in float64 and agree with a single pass up to
    rounding; the quantiles' error adds up and is stated.

    Args:
        dim: width of the rows.
    """

    def __init__(self, dim: int):
        self.count = 0
        self._mean = np.zeros(dim)
        self._square = np.zeros(dim)  # sum of squared distances from the mean
        self._min = np.full(dim, np.inf)
        self._max = np.full(dim, -np.inf)
        self._levels: list[np.ndarray] = [np.zeros((0, dim), np.float32)]
        self._odd: list[int] = [0]
        self._rank_error = 0

    def update(self, x: np.ndarray):
        """Adds rows `x [n, d]`.

        Raises:
            ValueError: for another width or values that are not finite.
        """
        x = np.asarray(x)
        dim = len(self._mean)
        if x.ndim != 2 or x.shape[1] != dim:
            raise ValueError(f"Expected rows [n, {dim}]; got an array {x.shape}.")
        if not np.isfinite(x).all():
            columns = np.flatnonzero(~np.isfinite(x).all(0)).tolist()
            raise ValueError(f"Values of the dimensions {columns} are not finite.")
        if not len(x):
            return
        wide = x.astype(np.float64)
        mean = wide.mean(0)
        self._merge_moments(len(x), mean, np.square(wide - mean).sum(0))
        self._min = np.minimum(self._min, wide.min(0))
        self._max = np.maximum(self._max, wide.max(0))
        for start in range(0, len(x), _CAPACITY):
            part = x[start : start + _CAPACITY].astype(np.float32)
            self._levels[0] = np.concatenate([self._levels[0], part])
            self._compact()

    def merge(self, other: "Streaming"):
        """Adds all rows that another object has seen.

        Raises:
            ValueError: when the rows differ in width.
        """
        if len(self._mean) != len(other._mean):
            raise ValueError(
                f"Cannot merge statistics of {len(other._mean)} dimensions into "
                f"{len(self._mean)}."
            )
        if not other.count:
            return
        self._merge_moments(other.count, other._mean, other._square)
        self._min = np.minimum(self._min, other._min)
        self._max = np.maximum(self._max, other._max)
        for level, samples in enumerate(other._levels):
            self._grow(level)
            self._levels[level] = np.concatenate([self._levels[level], samples])
        self._rank_error += other._rank_error
        self._compact()

    def finish(self) -> Statistics:
        """The statistics of everything seen so far.

        Raises:
            ValueError: when nothing was seen.
        """
        if not self.count:
            raise ValueError("There are no statistics of no values.")
        std = np.sqrt(self._square / self.count)
        q01, q99 = self._quantiles(np.array([0.01, 0.99]))
        span = self._max - self._min
        return Statistics(
            count=self.count,
            mean=self._mean.copy(),
            std=std,
            min=self._min.copy(),
            max=self._max.copy(),
            q01=q01,
            q99=q99,
            tiny=span <= tiny_span(self._mean),
            quantile_error=self._worst_rank() / self.count,
        )

    def ranked(self) -> tuple[np.ndarray, np.ndarray]:
        """The samples kept, in order, and their ranks counted from 0; both `[n, d]`."""
        weights = np.concatenate(
            [np.full(len(x), 2.0**k) for k, x in enumerate(self._levels)]
        )
        samples = np.concatenate(self._levels).astype(np.float64)
        order = np.argsort(samples, axis=0, kind="stable")
        # A sample of weight w stands for w neighbouring ranks.
        weight = weights[order]
        ranks = np.cumsum(weight, axis=0) - (weight + 1) / 2
        return np.take_along_axis(samples, order, axis=0), ranks

    def state(self) -> dict[str, np.ndarray]:
        """Everything as arrays, for `np.savez`; `from_state` is the way back."""
        moments = np.stack([self._mean, self._square, self._min, self._max])
        return {
            "moments": moments,
            "samples": np.concatenate(self._levels),
            "sizes": np.array([len(level) for level in self._levels]),
            "odd": np.array(self._odd),
            "counts": np.array([self.count, self._rank_error]),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> "Streaming":
        streaming = cls(state["moments"].shape[1])
        moments = np.array(state["moments"])
        streaming._mean, streaming._square, streaming._min, streaming._max = moments
        ends = np.cumsum(state["sizes"])
        streaming._levels = np.split(np.array(state["samples"]), ends[:-1])
        streaming._odd = state["odd"].tolist()
        streaming.count, streaming._rank_error = state["counts"].tolist()
        return streaming

    def _merge_moments(self, count: int, mean: np.ndarray, square: np.ndarray):
        total = self.count + count
        delta = mean - self._mean
        self._square = self._square + square + delta**2 * self.count * count / total
        self._mean = self._mean + delta * count / total
        self.count = total

    def _grow(self, level: int):
        while len(self._levels) <= level:
            self._levels.append(np.zeros((0, len(self._mean)), np.float32))
            self._odd.append(0)

    def _compact(self):
        """Halves every level that is over capacity into the one above it.

        Of two neighbours in order one is kept with twice the weight, in turn the lower
        and the upper one. That moves the rank of any value by at most the weight.
        """
        level = 0
        while level < len(self._levels):
            samples = self._levels[level]
            if len(samples) > _CAPACITY:
                self._grow(level + 1)
                even = len(samples) // 2 * 2
                ordered = np.sort(samples[:even], axis=0)
                kept = ordered[self._odd[level] :: 2]
                self._odd[level] ^= 1
                self._levels[level] = samples[even:]
                self._levels[level + 1] = np.concatenate(
                    [self._levels[level + 1], kept]
                )
                self._rank_error += 2**level
            level += 1

    def _worst_rank(self) -> int:
        """How far a quantile's rank can be off: all compactions, and one sample."""
        return (
            self._rank_error + 2 ** (len(self._levels) - 1) if self._rank_error else 0
        )

    def _quantiles(self, shares: np.ndarray) -> np.ndarray:
        """Quantiles `[len(shares), d]`; with unit weights those of `np.quantile`."""
        values, ranks = self.ranked()
        quantiles = np.empty((len(shares), values.shape[1]))
        for dimension in range(values.shape[1]):
            quantiles[:, dimension] = np.interp(
                shares * (self.count - 1), ranks[:, dimension], values[:, dimension]
            )
        return np.clip(quantiles, self._min, self._max)


def normalize(x, stats: Statistics, kind: str, mask=None):
    """Brings values to a common scale. Works on numpy and JAX arrays.

    `mean_std` gives mean 0 and standard deviation 1; `min_max` and `quantile` map
    [min, max] or [q01, q99] to [-1, 1] without clipping what lies outside, so that
    `unnormalize` is the exact inverse; `min_max_clipped` and `quantile_clipped` do the
    same and clip to [-1, 1]. A dimension whose q01 and q99 hardly differ uses min and
    max; one that is constant becomes 0.

    Args:
        x: `[..., d]`.
        stats: statistics of the `d` dimensions.
        kind: one of `NORMALIZATIONS`.
        mask: bool `[d]`, True for the dimensions to normalize; all when None.

    Raises:
        ValueError: for an unknown kind, one that needs what the statistics lack, or
            another number of dimensions.
    """
    shift, scale = _affine(stats, kind, mask, x.shape)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    y = (x - shift) * inverse
    if not kind.endswith(_CLIPPED):
        return y
    limit = np.full_like(scale, 1)
    if mask is not None:
        limit = np.where(mask, limit, np.float32(np.inf))
    return y.clip(-limit, limit)


def unnormalize(x, stats: Statistics, kind: str, mask=None):
    """The inverse of `normalize`, as far as nothing was clipped.

    A constant dimension becomes its mean.
    """
    shift, scale = _affine(stats, kind, mask, x.shape)
    return x * scale + shift


def action_mask(kinds: Sequence[str]) -> np.ndarray:
    """Which action dimensions are normalized, bool `[a]`: all but the gripper."""
    return np.array([kind != "gripper" for kind in kinds])


def _affine(stats: Statistics, kind: str, mask, shape) -> tuple:
    """Shift and scale, f32 `[1, ..., d]`, with `x = normalized * scale + shift`."""
    mean = stats.mean
    if kind not in NORMALIZATIONS:
        known = did_you_mean(kind, NORMALIZATIONS)
        raise ValueError(f"Unknown normalization {kind!r}; {known}")
    threshold = tiny_span(mean)
    plain = kind.removesuffix(_CLIPPED)
    if plain == "none":
        shift, scale = np.zeros_like(mean), np.ones_like(mean)
    elif plain == "mean_std":
        shift, scale = mean, np.where(stats.std <= threshold, 0, stats.std)
    else:
        low, high = _ends(stats, plain, threshold)
        constant = high - low <= threshold
        shift = np.where(constant, mean, (low + high) / 2)
        scale = np.where(constant, 0, (high - low) / 2)
    if shape[-1] != len(mean):
        raise ValueError(
            f"Expected {len(mean)} dimensions, as the statistics have; got {shape}."
        )
    if mask is not None:
        mask = np.asarray(mask)
        shift, scale = np.where(mask, shift, 0), np.where(mask, scale, 1)
    rank = (1,) * (len(shape) - 1) + (-1,)  # no implicit broadcasting over rank
    return (
        shift.astype(np.float32).reshape(rank),
        scale.astype(np.float32).reshape(rank),
    )


def _ends(stats: Statistics, kind: str, threshold: np.ndarray) -> tuple:
    """What becomes -1 and +1, `[d]` each."""
    low, high = stats.min, stats.max
    if kind == "quantile":
        low, high = stats.q01, stats.q99
        # Where min and max are not known, a narrow dimension stays as it is.
        narrow = (high - low <= threshold) & np.isfinite(stats.max - stats.min)
        low = np.where(narrow, stats.min, low)
        high = np.where(narrow, stats.max, high)
    if not np.isfinite(high - low).all():
        fields = "q01 and q99" if kind == "quantile" else "min and max"
        raise ValueError(
            f"Normalization {kind!r} needs {fields}, which these statistics lack: "
            "choose another, such as 'mean_std'."
        )
    return low, high


def _numbers(array: np.ndarray):
    """Numbers for JSON, which knows no NaN."""
    return np.where(np.isnan(array), None, array.astype(object)).tolist()


def tiny_span(mean: np.ndarray) -> np.ndarray:
    """The range, `[d]`, up to which values around `mean` count as constant."""
    return TINY * np.maximum(1, np.abs(mean))
