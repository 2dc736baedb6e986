"""Statistics of rankings against scipy, hand calculations, and what must hold for any numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from selfflow_mm.errors import UserError
from selfflow_robotics.report_card.ranking import agreement, mmrv, pearson_interval, spearman_interval

rates = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=8).map(
    lambda pairs: np.array(pairs).T / 20
)


def test_mmrv_by_hand() -> None:
    """Truth .9 .5 .1; the simulation exchanges the first two: each of these is violated by .4, the third not at all."""
    assert mmrv([0.9, 0.5, 0.1], [0.4, 0.6, 0.0]) == pytest.approx((0.4 + 0.4 + 0.0) / 3)
    # The order of the sides matters: now the rates in question differ by .2.
    assert mmrv([0.4, 0.6, 0.0], [0.9, 0.5, 0.1]) == pytest.approx((0.2 + 0.2) / 3)
    # A worst pair per policy, not a sum: the first is wrong against both, by .4 and .8.
    assert mmrv([0.9, 0.5, 0.1], [0.1, 0.5, 0.9]) == pytest.approx((0.8 + 0.4 + 0.8) / 3)


def test_a_tie_in_the_simulation_counts_against_the_better_policy() -> None:
    assert mmrv([0.9, 0.1], [0.5, 0.5]) == pytest.approx(0.8 / 2)


@given(rates)
def test_mmrv_of_any_rates(pair: np.ndarray) -> None:
    real, sim = pair
    assert mmrv(real, 3 * real + 1) == 0
    assert 0 <= mmrv(real, sim) <= np.ptp(real)
    order = np.random.default_rng(0).permutation(len(real))
    assert mmrv(real[order], sim[order]) == pytest.approx(mmrv(real, sim))


@given(rates)
def test_correlations_as_scipy(pair: np.ndarray) -> None:
    real, sim = pair
    pearson, spearman = pearson_interval(real, sim), spearman_interval(real, sim)
    if np.ptp(real) == 0 or np.ptp(sim) == 0:
        assert math.isnan(pearson.value) and math.isnan(spearman.value)
        return
    theirs = stats.pearsonr(real, sim)
    assert pearson.value == pytest.approx(theirs.statistic, abs=1e-9)
    assert spearman.value == pytest.approx(stats.spearmanr(real, sim).statistic, abs=1e-9)
    if len(real) >= 4 and abs(pearson.value) < 0.999:
        interval = theirs.confidence_interval()
        assert (pearson.low, pearson.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
        assert spearman.low < spearman.value < spearman.high


def test_six_policies_with_r_of_8_tell_little() -> None:
    """The figure that warnings quote: [-.03, .98]."""
    x = np.arange(6.0)
    noise = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    noise -= noise.mean() + (noise @ (x - x.mean())) / ((x - x.mean()) @ (x - x.mean())) * (x - x.mean())
    y = (x - x.mean()) / np.linalg.norm(x - x.mean()) * 0.8 + noise / np.linalg.norm(noise) * 0.6
    found = pearson_interval(x, y)
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == (pytest.approx(-0.03, abs=0.005), pytest.approx(0.98, abs=0.005))


def test_the_bootstrap_agrees_with_scipys_and_with_itself() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=40)
    y = x + random.normal(size=40)
    found, again = pearson_interval(x, y, seed=3), pearson_interval(x, y, seed=3)
    assert found == again
    theirs = stats.bootstrap(
        (x, y), lambda a, b, axis: stats.pearsonr(a, b, axis=axis).statistic, paired=True, n_resamples=2000,
        method="percentile", random_state=0,
    ).confidence_interval  # fmt: skip
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx((theirs.low, theirs.high), abs=0.04)


def test_three_pairs_have_no_interval() -> None:
    found = pearson_interval([0.1, 0.5, 0.9], [0.2, 0.4, 0.9])
    assert found.value > 0.9 and math.isnan(found.low) and math.isnan(found.bootstrap_low) and found.n == 3


def test_kappa_by_hand() -> None:
    """Cohen (1960): 20 both, 5 and 10 split, 15 neither, of 50: agreement .7, by chance .5, kappa .4."""
    real = [True] * 25 + [False] * 25
    imagined = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = agreement(real, imagined)
    assert (found.both, found.only_real, found.only_imagined, found.neither) == (20, 5, 10, 15)
    assert found.kappa == pytest.approx(0.4)
    assert agreement(real, real).kappa == 1
    assert math.isnan(agreement([True] * 3, [True] * 3).kappa)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="2 real rates cannot be paired with 3"):
        mmrv([0.1, 0.2], [0.1, 0.2, 0.3])
    with pytest.raises(UserError, match="no episode"):
        pearson_interval([0.1, math.nan], [0.1, 0.2])
    with pytest.raises(UserError, match="1 real verdicts"):
        agreement([True], [])
