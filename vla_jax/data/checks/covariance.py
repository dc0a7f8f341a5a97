"""Correlation of two vectors over rows that come in pieces."""

import numpy as np


class Covariance:
    """Sums from which the correlation of `x [n, i]` with `y [n, j]` follows.

    Rows are taken relative to the first one, so that large means lose no digits.
    """

    def __init__(self):
        self._origin: tuple[np.ndarray, np.ndarray] | None = None
        self._sums = 0.0
        self._squares = 0.0
        self._count = 0

    def update(self, x: np.ndarray, y: np.ndarray):
        """Adds rows."""
        if not len(x):
            return
        both = np.concatenate([x, y], axis=1).astype(np.float64)
        if self._origin is None:
            self._origin = (both[0], np.array(x.shape[1]))
        both = both - self._origin[0]
        self._sums = self._sums + both.sum(0)
        self._squares = self._squares + both.T @ both
        self._count += len(both)

    @property
    def count(self) -> int:
        return self._count

    def correlation(self) -> np.ndarray:
        """Pearson's, `[i, j]`; 0 where either does not vary."""
        covariance, split = self._covariance()
        std = np.sqrt(np.maximum(np.diag(covariance), 0))
        scale = np.outer(std[:split], std[split:])
        cross = covariance[:split, split:]
        return np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 1e-12)

    def slope(self) -> np.ndarray:
        """How far `y` goes per unit of `x`, by least squares; `[i, j]`."""
        covariance, split = self._covariance()
        variance = np.diag(covariance)[:split, None]
        cross = covariance[:split, split:]
        return np.divide(cross, variance, out=np.zeros_like(cross), where=variance > 0)

    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Mean and standard deviation of `x`, then of `y`."""
        covariance, split = self._covariance()
        mean = self._origin[0] + self._sums / self._count
        std = np.sqrt(np.maximum(np.diag(covariance), 0))
        return mean[:split], std[:split], mean[split:], std[split:]

    def _covariance(self) -> tuple[np.ndarray, int]:
        assert self._origin is not None, "no rows"
        mean = self._sums / self._count
        covariance = self._squares / self._count - np.outer(mean, mean)
        return covariance, int(self._origin[1])
