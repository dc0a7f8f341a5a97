"""How long things took lately, as percentiles."""

from collections import deque

import numpy as np

_KEPT = 4096  # durations of each kind
PERCENTILES = (50, 95, 99)


class Timings:
    """The last durations of several kinds, in constant memory."""

    def __init__(self) -> None:
        self._kinds: dict[str, deque[float]] = {}

    def add(self, **seconds: float) -> None:
        """Notes one duration per kind."""
        for kind, value in seconds.items():
            self._kinds.setdefault(kind, deque(maxlen=_KEPT)).append(value)

    def summary(self) -> dict[str, dict[str, float]]:
        """Per kind: `p50_ms`, `p95_ms`, `p99_ms` and the `count` behind them."""
        return {
            kind: {**percentiles_ms(values), "count": len(values)}
            for kind, values in self._kinds.items()
        }


def percentiles_ms(seconds) -> dict[str, float]:
    """`p50_ms`, `p95_ms` and `p99_ms` of durations in seconds."""
    values = 1000 * np.percentile(np.asarray(seconds, float), PERCENTILES)
    return {
        f"p{p}_ms": round(float(value), 3)
        for p, value in zip(PERCENTILES, values, strict=True)
    }
