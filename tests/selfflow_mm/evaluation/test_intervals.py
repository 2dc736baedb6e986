"""Intervals of means against their theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from selfflow_mm.evaluation.intervals import mean_with_interval, wilson


def test_the_interval_is_that_of_the_normal_distribution_for_many_samples() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 4000)
    found = mean_with_interval(values)
    error = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert found.n == 4000 and found.mean == pytest.approx(values.mean())
    assert found.median == pytest.approx(float(np.median(values)))
    assert (found.high - found.low) / 2 == pytest.approx(error, rel=0.08)


def test_intervals_hold_the_truth_about_19_times_in_20() -> None:
    random = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        found = mean_with_interval(random.exponential(1.0, 60), seed)
        hits += found.low <= 1.0 <= found.high
    assert 175 <= hits <= 198


def test_the_same_seed_gives_the_same_interval_and_nan_is_left_out() -> None:
    values = [1.0, 2.0, math.nan, 4.0]
    assert mean_with_interval(values, 3) == mean_with_interval([1.0, 2.0, 4.0], 3)
    assert mean_with_interval(values, 3).n == 3
    one, none = mean_with_interval([2.5]), mean_with_interval([math.nan])
    assert (one.mean, one.n) == (2.5, 1) and math.isnan(one.low)
    assert none.n == 0 and math.isnan(none.mean)


def test_many_samples_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(50.0)
    whole = mean_with_interval(values)
    monkeypatch.setattr("selfflow_mm.evaluation.intervals._AT_ONCE", 500)
    assert mean_with_interval(values) == whole


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 200), (200, 200), (7, 30), (153, 300)])
def test_wilson_is_scipys(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_refuses_impossible_counts() -> None:
    for successes, trials in ((0, 0), (3, 2), (-1, 5)):
        with pytest.raises(ValueError):
            wilson(successes, trials)
