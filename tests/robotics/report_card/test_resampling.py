"""The bootstrap over episodes against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from selfflow_robotics.report_card.resampling import estimate, mean_of


def test_the_interval_of_independent_clips_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean_of(values, [str(i) for i in range(400)])
    assert found.value == pytest.approx(values.mean()) and (found.n, found.episodes) == (400, 400)
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == (
        pytest.approx(found.value - half, abs=0.04),
        pytest.approx(found.value + half, abs=0.04),
    )


def test_copies_of_a_clip_make_nothing_surer() -> None:
    """Five equal clips of each episode say no more than one."""
    values = np.random.default_rng(0).normal(size=30)
    names = [str(i) for i in range(30)]
    once, often = mean_of(values, names, seed=4), mean_of(np.repeat(values, 5), np.repeat(names, 5).tolist(), seed=4)
    assert (once.value, once.low, once.high) == pytest.approx((often.value, often.low, often.high))
    assert (often.n, often.episodes) == (150, 30)


def test_clips_that_do_not_count() -> None:
    found = mean_of(np.array([1.0, np.nan, 3.0]), ["a", "b", "c"])
    assert (found.value, found.n, found.episodes) == (2.0, 2, 2)
    five, six = (mean_of(np.arange(n), [str(i) for i in range(n)]) for n in (5, 6))
    assert five.value == 2 and math.isnan(five.low) and five.episodes == 5
    assert six.low < 2.5 < six.high
    none = mean_of(np.array([np.nan]), ["a"]).to_dict()
    assert none == {"value": None, "low": None, "high": None, "n": 0, "episodes": 0}


def test_a_ratio_of_means_is_no_mean_of_ratios() -> None:
    sums = np.array([[2.0, 1.0], [9.0, 3.0]] * 20)
    found = estimate(sums, [str(i) for i in range(40)], lambda s: s[..., 0] / s[..., 1])
    assert found.value == pytest.approx(11 / 4) and 2.5 < found.low < 11 / 4 < found.high < 3
