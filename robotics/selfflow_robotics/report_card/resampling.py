"""Intervals where clips of one episode are no independent samples: the bootstrap draws whole episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LEAST_EPISODES", "Estimate", "estimate", "mean_of", "summed"]

_DRAWS = 2000
#: Fewer episodes have no interval. Where nothing is to be found, all of k episodes point the same way, and the
#: bootstrap excludes 0, with a chance of 2 / 2^k: 3 % of six, but 50 % of two.
LEAST_EPISODES = 6

#: From sums over clips ``(..., M)`` to the figure ``(...)``.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is not defined, no interval from fewer than six episodes.

    Attributes:
        value, low, high: the figure over all clips, and the percentile bootstrap over episodes, 2,000 draws.
        n: clips that count.
        episodes: they come from.
    """

    value: float
    low: float
    high: float
    n: int
    episodes: int

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON, which has no NaN: that becomes None."""
        return {
            "value": _finite(self.value),
            "low": _finite(self.low),
            "high": _finite(self.high),
            "n": self.n,
            "episodes": self.episodes,
        }


def estimate(sums: np.ndarray, episodes: Sequence[str], statistic: Statistic, seed: int = 0) -> Estimate:
    """A figure that is a function of sums over clips, such as a mean, a ratio of means or a correlation.

    The cluster bootstrap (Davison and Hinkley 1997, section 3.8): as many episodes as there are, drawn with
    replacement, each with all its clips.

    Args:
        sums: ``(n, M)`` what each clip adds; rows with a NaN do not count.
        episodes: of each clip.
        statistic: from the added sums, with any leading axes, to the figure.
        seed: the same gives the same interval.
    """
    known = ~np.isnan(sums).any(axis=1)
    names, place = np.unique(np.asarray(episodes, dtype=str)[known], return_inverse=True)
    n, k = int(known.sum()), len(names)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    clusters = summed(sums[known], place, k)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(clusters.sum(axis=0)))
        if k < LEAST_EPISODES:
            return Estimate(value, math.nan, math.nan, n, k)
        random = np.random.default_rng(seed)
        drawn = random.multinomial(k, np.full(k, 1 / k), size=_DRAWS) @ clusters
        figures = statistic(drawn)
    figures = figures[np.isfinite(figures)]
    low, high = np.quantile(figures, (0.025, 0.975)) if len(figures) else (math.nan, math.nan)
    return Estimate(value, float(low), float(high), n, k)


def mean_of(values: np.ndarray, episodes: Sequence[str], seed: int = 0) -> Estimate:
    """The mean of one value per clip, ``(n,)``; NaN does not count."""
    sums = np.stack([values, np.where(np.isnan(values), np.nan, 1.0)], axis=1)
    return estimate(sums, episodes, lambda s: s[..., 0] / s[..., 1], seed)


def summed(rows: np.ndarray, place: np.ndarray, k: int) -> np.ndarray:
    """``(k, M)``: row i is the sum of those ``rows (n, M)`` whose ``place`` is i."""
    result = np.zeros((k, rows.shape[1]))
    np.add.at(result, place, rows)
    return result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
