"""How sure a success rate is, and whether two of them differ."""

import math
import statistics


def wilson_interval(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a success rate (Wilson, 1927); z = 1.96 for 95 %.

    Args:
        k: successes.
        n: trials.
        z: quantile of the normal distribution.

    Raises:
        ValueError: k outside 0..n, or n below 1.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"{k} successes of {n} trials are impossible.")
    rate = k / n
    center = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    spread = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # At k = 0 and k = n the bound is exact; rounding would leave 1e-17.
    low = 0.0 if k == 0 else center - spread
    high = 1.0 if k == n else center + spread
    return low, high


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar test (McNemar, 1947).

    Args:
        only_a: pairs in which only the first succeeded.
        only_b: pairs in which only the second succeeded.

    Returns:
        The probability of a split at least as uneven if both were equally good.

    Raises:
        ValueError: a negative count.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"Counts {only_a} and {only_b} must not be negative.")
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def z_score(confidence: float) -> float:
    """Quantile of the normal distribution for a two-sided interval; 0.95 gives 1.96.

    Raises:
        ValueError: a confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence is {confidence}; expected a share such as 0.95 or 0.99."
        )
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)
