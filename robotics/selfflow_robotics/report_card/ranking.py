"""Do two ways of testing policies agree? Correlations with their intervals, SIMPLER's rank violation, Cohen's kappa.

Usually there are few policies, and then every figure here is uncertain: read the intervals before the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from selfflow_mm.errors import UserError

__all__ = ["Agreement", "Correlation", "agreement", "mmrv", "pearson_interval", "spearman_interval"]

_Z = 1.959963984540054  # the normal distribution's 97.5 % point
_DRAWS = 2000


@dataclass(frozen=True)
class Correlation:
    """A correlation of ``n`` pairs with two 95 % intervals; NaN where there is none.

    Attributes:
        value: NaN if one side does not vary or ``n`` < 2.
        low, high: by Fisher's z (1915); NaN under four pairs. Exact only for normal data, and the only one of the two
            that is honest for a handful of pairs.
        bootstrap_low, bootstrap_high: the percentile bootstrap over pairs, 2,000 draws; draws in which one side does
            not vary are left out. Too narrow for few pairs.
        n: pairs.
    """

    value: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    n: int


@dataclass(frozen=True)
class Agreement:
    """Two verdicts, success or not, on each of several episodes.

    Attributes:
        both, only_real, only_imagined, neither: counts of episodes.
        kappa: Cohen's (1960): 1 for equal verdicts, 0 for as many equal ones as the two rates give by chance; NaN where
            both sides say the same of all episodes, or there is none.
    """

    both: int
    only_real: int
    only_imagined: int
    neither: int
    kappa: float


def mmrv(real: Sequence[float], sim: Sequence[float]) -> float:
    """Mean maximum rank violation (Li et al. 2024, "SIMPLER", eq. 1): 0 if both sides rank the policies equally.

        1/N sum_i max_j |real_i - real_j| [ (sim_i > sim_j) != (real_i > real_j) ]

    A wrong order costs as much as the **real** rates differ, so the sides cannot be exchanged. (SIMPLER's own
    ``mean_maximum_rank_violation`` takes them the other way round: ``perf_sim, perf_real``.) A tie in ``sim`` of two
    policies that differ in truth counts against the better one.

    Raises:
        UserError: no policy, not equally many on both sides, or a rate that is not finite.
    """
    truth, guess = _pairs(real, sim)
    if not len(truth):
        raise UserError("the rank violation of no policy is not defined")
    wrong = (guess[:, None] > guess[None, :]) != (truth[:, None] > truth[None, :])
    violation = np.where(wrong, np.abs(truth[:, None] - truth[None, :]), 0.0)
    return float(violation.max(axis=1).mean())


def pearson_interval(real: Sequence[float], sim: Sequence[float], seed: int = 0) -> Correlation:
    """Pearson's r; the standard error of Fisher's z is 1 / sqrt(n - 3)."""
    return _interval(real, sim, _pearson, lambda r, n: 1 / math.sqrt(n - 3), seed)


def spearman_interval(real: Sequence[float], sim: Sequence[float], seed: int = 0) -> Correlation:
    """Spearman's rho: Pearson's r of the ranks, ties at their mean rank.

    The standard error of Fisher's z is sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett and Wright 2000).
    """
    return _interval(
        real,
        sim,
        lambda x, y: _pearson(_ranks(x), _ranks(y)),
        lambda r, n: math.sqrt((1 + r * r / 2) / (n - 3)),
        seed,
    )


def agreement(real: Sequence[bool], imagined: Sequence[bool]) -> Agreement:
    """Counts and Cohen's kappa; entry i of both is the same episode.

    Raises:
        UserError: not equally many verdicts.
    """
    if len(real) != len(imagined):
        raise UserError(f"{len(real)} real verdicts cannot be paired with {len(imagined)} imagined ones")
    truth, guess = np.asarray(real, bool), np.asarray(imagined, bool)
    both, neither = int((truth & guess).sum()), int((~truth & ~guess).sum())
    only_real, only_imagined = int((truth & ~guess).sum()), int((~truth & guess).sum())
    n = len(truth)
    if n == 0:
        return Agreement(0, 0, 0, 0, math.nan)
    chance = ((both + only_real) * (both + only_imagined) + (neither + only_imagined) * (neither + only_real)) / n**2
    kappa = ((both + neither) / n - chance) / (1 - chance) if chance < 1 else math.nan
    return Agreement(both, only_real, only_imagined, neither, kappa)


def _pairs(real: Sequence[float], sim: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    truth, guess = np.asarray(real, np.float64), np.asarray(sim, np.float64)
    if truth.ndim != 1 or truth.shape != guess.shape:
        raise UserError(f"{truth.size} real rates cannot be paired with {guess.size} of the simulation")
    if not (np.isfinite(truth).all() and np.isfinite(guess).all()):
        raise UserError("a success rate is not finite: was a policy tested on no episode?")
    return truth, guess


def _interval(
    real: Sequence[float],
    sim: Sequence[float],
    correlation: Callable[[np.ndarray, np.ndarray], np.ndarray],
    error: Callable[[float, int], float],
    seed: int,
) -> Correlation:
    x, y = _pairs(real, sim)
    n = len(x)
    value = float(correlation(x, y)) if n > 1 else math.nan
    if math.isnan(value) or n < 4:
        return Correlation(value, math.nan, math.nan, math.nan, math.nan, n)
    # At |r| = 1 z is infinite; so is the certainty that the formula then claims.
    middle = math.atanh(min(max(value, -1 + 1e-15), 1 - 1e-15))
    half = _Z * error(value, n)
    rows = np.random.default_rng(seed).integers(0, n, (_DRAWS, n))
    drawn = np.concatenate([correlation(x[some], y[some]) for some in np.array_split(rows, 20)])
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Correlation(value, math.tanh(middle - half), math.tanh(middle + half), float(low), float(high), n)


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the last axis; NaN where one side does not vary."""
    dx, dy = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    flat = (np.ptp(x, axis=-1) == 0) | (np.ptp(y, axis=-1) == 0)
    size = np.sqrt((dx * dx).sum(axis=-1) * (dy * dy).sum(axis=-1))
    return np.where(flat, np.nan, np.clip((dx * dy).sum(axis=-1) / np.where(flat, 1, size), -1, 1))


def _ranks(x: np.ndarray) -> np.ndarray:
    """In the last axis, 1 for the smallest; equal values share the mean of their ranks."""
    below = (x[..., None, :] < x[..., :, None]).sum(axis=-1)
    equal = (x[..., None, :] == x[..., :, None]).sum(axis=-1)
    return below + (equal + 1) / 2
