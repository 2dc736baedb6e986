"""Means with the uncertainty that a limited number of samples leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 2000
_AT_ONCE = 2**22  # drawn indices held in memory at a time


@dataclass(frozen=True)
class Mean:
    """A mean over ``n`` samples with a 95 % interval; all NaN when there is no sample, no interval of one."""

    mean: float
    low: float
    high: float
    median: float
    n: int


def mean_with_interval(values: Iterable[float], seed: int = 0) -> Mean:
    """Mean of what is not NaN, with the percentile bootstrap's 95 % interval (Efron 1979).

    2,000 draws of n samples with replacement; the same ``seed`` gives the same interval.
    """
    finite = np.array([v for v in values if not math.isnan(v)], dtype=np.float64)
    n = len(finite)
    if not n:
        return Mean(math.nan, math.nan, math.nan, math.nan, 0)
    middle, median = float(finite.mean()), float(np.median(finite))
    if n == 1:
        return Mean(middle, math.nan, math.nan, median, 1)
    random = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // n)
    parts = [min(rows, _DRAWS - start) for start in range(0, _DRAWS, rows)]
    means = np.concatenate([finite[random.integers(0, n, (part, n))].mean(axis=1) for part in parts])
    low, high = np.quantile(means, (0.025, 0.975))
    return Mean(middle, float(low), float(high), median, n)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927): it holds near 0 and 1 too, where the usual one fails.

    Raises:
        ValueError: not ``0 <= successes <= trials`` or no trial.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials")
    z = 1.959963984540054  # the normal distribution's 97.5 % point
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def mover(
    shares: Sequence[float], intervals: Sequence[tuple[float, float]], weights: Sequence[float]
) -> tuple[float, float, float]:
    """A weighted sum of independent estimates and its interval, of their own intervals (Zou and Donner 2008).

    Each estimate's variance is recovered from how far away its limits are, the lower ones for the lower limit:

        L = sum w_i p_i - sqrt(sum w_i^2 (p_i - l_i)^2),  U = sum w_i p_i + sqrt(sum w_i^2 (u_i - p_i)^2)

    Args:
        shares: p_i.
        intervals: (l_i, u_i), all at one level, which is the result's too.
        weights: w_i, at least 0.

    Returns:
        The sum, L and U.
    """
    terms = list(zip(weights, shares, intervals, strict=True))
    middle = math.fsum(weight * share for weight, share, _ in terms)
    below = math.hypot(*(weight * (share - low) for weight, share, (low, _) in terms))
    above = math.hypot(*(weight * (high - share) for weight, share, (_, high) in terms))
    return middle, middle - below, middle + above
