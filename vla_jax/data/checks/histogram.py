"""Histograms from the sketches of the statistics, and their drawings as SVG."""

import numpy as np

from vla_jax.data.statistics import Streaming

_BINS = 40
_WIDTH, _HEIGHT, _FLOOR = 220, 90, 72  # pixels; bars stand on the floor


def histograms(streaming: Streaming, bins: int = _BINS) -> list[dict]:
    """Shares of the training steps in equal bins, dimension by dimension.

    As exact as the quantiles are. Bins reach a quarter beyond what lies between the
    1 % and 99 % quantiles, so that an outlier does not flatten everything else; values
    beyond that are told apart.

    Returns:
        For each dimension `edges [bins + 1]`, `shares [bins]`, and the shares `below`
        and `above` the bins.
    """
    values, ranks = streaming.ranked()
    stats = streaming.finish()
    found = []
    for d in range(values.shape[1]):
        margin = (stats.q99[d] - stats.q01[d]) / 4
        low = max(stats.min[d], stats.q01[d] - margin)
        high = min(stats.max[d], stats.q99[d] + margin)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, bins + 1)
        below = np.searchsorted(values[:, d], edges, side="left")
        below[-1] = np.searchsorted(values[:, d], high, side="right")
        # The rank of the last value below an edge, counted from 0, plus itself.
        cumulated = np.where(below > 0, ranks[below - 1, d] + 1, 0) / stats.count
        found.append(
            {
                "edges": edges,
                "shares": np.diff(cumulated),
                "below": float(cumulated[0]),
                "above": max(0.0, float(1 - cumulated[-1])),
            }
        )
    return found


def draw_histogram(histogram: dict) -> str:
    """An SVG of one histogram with the ends of its axis written below."""
    edges, shares = histogram["edges"], histogram["shares"]
    top, step = max(float(shares.max()), 1e-9), _WIDTH / len(shares)
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{_FLOOR * (1 - share / top):.1f}" '
        f'width="{step - 0.5:.1f}" height="{_FLOOR * share / top:.1f}"/>'
        for i, share in enumerate(shares.tolist())
        if share > 0
    )
    zero = ""
    if edges[0] < 0 < edges[-1]:
        x = _WIDTH * -edges[0] / (edges[-1] - edges[0])
        zero = f'<path d="M{x:.1f} 0V{_FLOOR + 4}" stroke="#7b8794"/>'
    text = 'font-size="11" fill="#1c2733" y="86"'
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="Histogram"><g fill="#2f7d6d">{bars}</g>'
        f'<path d="M0 {_FLOOR}H{_WIDTH}" stroke="#1c2733"/>{zero}'
        f"<text {text}>{edges[0]:.3g}</text>"
        f'<text {text} x="{_WIDTH}" text-anchor="end">{edges[-1]:.3g}</text></svg>'
    )


def count_lengths(lengths: np.ndarray, bins: int = _BINS) -> dict:
    """The same kind of histogram for episode lengths, `[e]`."""
    low, high = float(lengths.min()), float(lengths.max())
    if not high > low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(lengths, bins=bins, range=(low, high))
    return {"edges": edges, "shares": counts / len(lengths), "below": 0.0, "above": 0.0}
