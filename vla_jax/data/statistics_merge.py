"""Statistics of a mixture from those of its data sets, quantiles included.

Moments of a mixture are exact. Its quantiles are those of the weighted sum of the
cumulative distributions: known sample by sample from a `Streaming` sketch, but only at
minimum, 1 %, 99 % and maximum from finished `Statistics`, linear in between.
"""

from collections.abc import Sequence

import numpy as np

from vla_jax.data.statistics import Statistics, Streaming, tiny_span

_SHARES = np.array([0.01, 0.99])


def merge_statistics(
    parts: Sequence[Statistics | Streaming], weights: Sequence[float] | None = None
) -> Statistics:
    """Statistics of values drawn from several data sets.

    What one part does not know (NaN), the result does not know either.

    Args:
        parts: one per data set, all of the same width. Sketches give quantiles as
            good as those of one pass; `Index.streaming` has them.
        weights: how often values are drawn from each, in any unit; the number of
            values of each when None.

    Raises:
        ValueError: for different widths, parts without values, or weights that are
            not one finite number of at least 0 per part, one of them above 0.
    """
    stats = [p.finish() if isinstance(p, Streaming) else p for p in parts]
    share = _check_shares(stats, weights)
    used = np.flatnonzero(share)
    stats, parts, share = (
        [stats[i] for i in used],
        [parts[i] for i in used],
        share[used],
    )
    means = np.stack([s.mean for s in stats])
    mean = share @ means
    variance = share @ (np.stack([s.std for s in stats]) ** 2 + (means - mean) ** 2)
    low = np.stack([s.min for s in stats]).min(0)  # NaN stays NaN
    high = np.stack([s.max for s in stats]).max(0)
    quantiles = np.full((2, len(mean)), np.nan)
    error = 0.0
    for dimension in range(len(mean)):
        curves = [
            _curve(part, s, dimension) for part, s in zip(parts, stats, strict=True)
        ]
        if any(len(values) == 0 for values, _ in curves):
            error = np.nan
            continue
        quantiles[:, dimension] = _invert(curves, share)
        # A sketch states its own error; four points leave much open between them.
        off = max(
            sum(
                weight * _uncertainty(*curve, quantile)
                for weight, curve, part in zip(share, curves, parts, strict=True)
                if isinstance(part, Statistics)
            )
            for quantile in quantiles[:, dimension]
        )
        error = max(error, off)
    sketch_error = share @ np.array([s.quantile_error for s in stats])
    std = np.sqrt(variance)
    span = np.where(np.isnan(high - low), 2 * std, high - low)
    return Statistics(
        count=sum(s.count for s in stats) if all(s.count for s in stats) else 0,
        mean=mean,
        std=std,
        min=low,
        max=high,
        q01=quantiles[0],
        q99=quantiles[1],
        tiny=span <= tiny_span(mean),
        quantile_error=float(sketch_error + error),
    )


def _check_shares(stats: Sequence[Statistics], weights) -> np.ndarray:
    """Shares of the parts, f64 `[n]`, that sum to 1."""
    widths = [len(s.mean) for s in stats]
    if len(set(widths)) != 1:
        raise ValueError(
            "Only statistics of the same number of dimensions can be merged; these "
            f"have {widths}."
        )
    if weights is None:
        weights = [s.count for s in stats]
        if not all(weights):
            raise ValueError(
                f"The parts have {weights} values; give weights where a count is 0."
            )
    share = np.array(weights, np.float64)
    good = share.shape == (len(stats),) and np.isfinite(share).all()
    if not good or (share < 0).any() or not share.any():
        raise ValueError(
            f"Got the weights {list(weights)}; expected {len(stats)} finite numbers of "
            "at least 0, one of them above."
        )
    return share / share.sum()


def _curve(part: Statistics | Streaming, stats: Statistics, dimension: int) -> tuple:
    """What is known of a cumulative distribution: values in order, their shares.

    Empty when the quantiles are not known.
    """
    if isinstance(part, Streaming):
        values, ranks = part.ranked()
        return values[:, dimension], ranks[:, dimension] / max(part.count - 1, 1)
    if np.isnan(stats.q01[dimension] + stats.q99[dimension]):
        return np.zeros(0), np.zeros(0)
    values = [getattr(stats, key)[dimension] for key in ("min", "q01", "q99", "max")]
    known = ~np.isnan(values)
    return np.array(values)[known], np.array([0, *_SHARES, 1])[known]


def _invert(curves: Sequence[tuple], share: np.ndarray) -> np.ndarray:
    """Both quantiles of a mixture."""
    knots = np.unique(np.concatenate([values for values, _ in curves]))
    # A distribution jumps where values repeat: both sides of every knot count.
    sides = [
        share
        @ np.stack([_evaluate(values, ranks, knots, side) for values, ranks in curves])
        for side in ("left", "right")
    ]
    rank = np.stack(sides, axis=1).ravel()
    return np.interp(_SHARES, rank, np.repeat(knots, 2))


def _evaluate(values, ranks, x, side: str) -> np.ndarray:
    """The share of values up to `x`, approached from the left or the right."""
    if side == "right":
        low = np.searchsorted(values, x, "right") - 1
        high = low + 1
    else:
        high = np.searchsorted(values, x, "left")
        low = high - 1
    last = len(values) - 1
    left, right = np.clip(low, 0, last), np.clip(high, 0, last)
    span = values[right] - values[left]
    along = np.divide(x - values[left], span, out=np.zeros(len(x)), where=span > 0)
    inside = ranks[left] + along * (ranks[right] - ranks[left])
    return np.where(low < 0, 0.0, np.where(high > last, 1.0, inside))


def _uncertainty(values, ranks, x: float) -> float:
    """How far the share of values up to `x` can be from the straight line."""
    low = np.searchsorted(values, x, "right") - 1
    high = np.searchsorted(values, x, "left")
    if low >= high:  # x is a known value
        return 0.0
    bottom = ranks[low] if low >= 0 else 0.0
    top = ranks[high] if high < len(ranks) else 1.0
    share = _evaluate(values, ranks, np.array([x]), "right")[0]
    return float(max(share - bottom, top - share))
