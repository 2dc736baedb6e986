"""Counts, intervals and comparisons against hand calculations and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from selfflow_mm.errors import UserError
from selfflow_robotics.rollouts import EpisodeResult, compare, summarise
from selfflow_robotics.rollouts.report import as_text
from selfflow_robotics.rollouts.summary import ALL, mcnemar


def row(task, episode, success, steps=10, layout=0, ever=None):
    ever = success if ever is None else ever
    return EpisodeResult(task, episode, layout + episode, steps, success, ever, ("do",), 3, 0.5)


def test_a_summary_by_hand():
    rows = [row("a", n, n < 3, steps=10 + n, ever=n < 5) for n in range(8)] + [row("b", n, True) for n in range(2)]
    one, two, both = summarise(rows)
    assert (one.task, one.episodes, one.successes, one.successes_any, one.share) == ("a", 8, 3, 5, 0.375)
    assert one.steps == 13.5 and one.queries == 3
    # Wilson's interval is where |share - p| = 1.96 sqrt(p (1 - p) / n).
    for p in (one.low, one.high):
        assert abs(0.375 - p) == pytest.approx(1.959963985 * math.sqrt(p * (1 - p) / 8))
    assert (two.share, two.high) == (1.0, 1.0) and two.low < 0.5
    assert (both.task, both.episodes, both.successes) == (ALL, 10, 5)
    assert [line.task for line in summarise(rows[:8])] == ["a"]


def test_mcnemar_is_the_binomial_test():
    for only, other in ((0, 0), (1, 0), (5, 1), (10, 10), (3, 17), (200, 150)):
        expected = binomtest(only, only + other).pvalue if only + other else 1.0
        assert mcnemar(only, other) == pytest.approx(expected)


def test_a_comparison_by_hand():
    ours = [row("a", n, n in (0, 1, 2, 3, 4)) for n in range(10)]
    theirs = [row("a", n, n in (0, 1, 9)) for n in range(10)]
    (line,) = compare(ours, theirs)
    assert (line.episodes, line.successes, line.other, line.only, line.only_other) == (10, 5, 3, 3, 1)
    assert line.difference == pytest.approx(0.2) and line.p == pytest.approx(2 * (1 + 4) / 16)
    # The mean's standard error is sqrt(0.36 / 10): the bootstrap's interval is about that wide.
    assert line.high - line.low == pytest.approx(2 * 1.96 * math.sqrt(0.36 / 10), rel=0.2)
    (back,) = compare(theirs, ours)
    assert back.difference == -line.difference and back.p == line.p


def test_only_shared_episodes_are_compared():
    ours = [row(task, n, True) for task in "ab" for n in range(4)]
    theirs = [row(task, n, False) for task in "bc" for n in range(2, 9)]
    (line,) = compare(ours, theirs)
    assert (line.task, line.episodes, line.difference) == ("b", 2, 1.0)
    both = compare(ours, [row(task, n, n % 2 == 0) for task in "ab" for n in range(4)])
    assert [line.task for line in both] == ["a", "b", ALL] and both[2].episodes == 8
    with pytest.raises(UserError, match="no episode in common"):
        compare(ours, [row("c", 0, True)])
    with pytest.raises(UserError, match="another scene"):
        compare(ours, [row("a", 0, True, layout=7)])


def test_the_table():
    ours = [row("a", n, n < 3) for n in range(8)]
    text = as_text(summarise(ours), compare(ours, [row("a", n, False) for n in range(8)]), "other")
    first, second = text.splitlines()[1].split(), text.splitlines()[-1].split()
    assert first[:4] == ["a", "8", "3", "37.5%"]
    assert second[:7] == ["a", "8", "3", "0", "3", "0", "+37.5%"] and second[-1] == "0.25"
    assert "nan" not in as_text(summarise(ours[:1]), compare(ours[:1], ours[:1]), "itself")
    assert np.isnan(compare(ours, ours)[0].low)  # nothing came out differently
