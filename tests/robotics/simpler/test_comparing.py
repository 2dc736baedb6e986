"""Two evaluations episode by episode, against hand calculations and scipy."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy.stats import binomtest

from selfflow_mm.errors import UserError
from selfflow_robotics.rollouts.summary import ALL
from selfflow_robotics.simpler import SUITES, TABLETOP_SUITES, trials
from selfflow_robotics.simpler.comparing import Difference, as_plain, as_text, compare, differences, identity
from tests.robotics.simpler.rows import of_task, row, rows, settings, write_run


@pytest.mark.parametrize("suite", [*SUITES, *TABLETOP_SUITES])
def test_no_two_episodes_of_a_suite_are_the_same(suite: str) -> None:
    found = rows(trials(suite))
    assert len({identity(one) for one in found}) == len(found)


def test_a_comparison_by_hand(tmp_path: Path) -> None:
    found = of_task("widowx", "stack_cube", 10)
    ours = write_run(tmp_path / "a", rows(found, lambda i: i in (0, 1, 2, 3, 4)))
    theirs = write_run(tmp_path / "b", rows(found, lambda i: i in (0, 1, 9)))
    (line,) = compare(ours, theirs).lines
    assert (line.task, line.episodes, line.successes, line.other) == ("stack_cube", 10, 5, 3)
    assert (line.only, line.only_other) == (3, 1)  # 2, 3, 4 against 9
    assert line.difference == pytest.approx(0.2) and line.p == pytest.approx(binomtest(3, 4).pvalue)
    # Differences are 1 three times, -1 once, else 0: variance .4 - .04, so the mean's error is sqrt(.36 / 10).
    assert line.high - line.low == pytest.approx(2 * 1.96 * math.sqrt(0.36 / 10), rel=0.2)
    (same,) = compare(ours, ours).lines
    assert same.p == 1 and math.isnan(same.low) and as_plain(compare(ours, ours))["lines"][0]["low"] is None


def test_episodes_are_paired_by_what_they_are_and_not_by_number(tmp_path: Path) -> None:
    """The WidowX's episodes have other numbers in the suite of everything."""
    alone, among = trials("widowx"), [t for t in trials("all") if t.arrangement.robot.startswith("widowx")]
    assert {t.number for t in alone}.isdisjoint(t.number for t in among)
    ours = write_run(tmp_path / "a", rows(alone, lambda i: i % 3 == 0, environment_seed=5))
    theirs = write_run(tmp_path / "b", rows(among, lambda i: i % 3 == 0, environment_seed=5)[::-1])
    comparison = compare(ours, theirs)
    assert [line.task for line in comparison.lines[:-1]] == list(dict.fromkeys(t.arrangement.task for t in alone))
    assert comparison.lines[-1].task == ALL and comparison.lines[-1].episodes == 96
    assert {(line.only, line.only_other) for line in comparison.lines} == {(0, 0)}


def test_one_task_in_two_settings_is_two_lines(tmp_path: Path) -> None:
    cans = [t for t in trials("all") if t.arrangement.task == "pick_coke_can"]
    run = write_run(tmp_path / "a", rows(cans), settings("all"))
    names = [line.task for line in compare(run, run).lines]
    assert names == ["pick_coke_can, visual matching", "pick_coke_can, variant aggregation", ALL]


def test_repeats_are_paired_with_their_own(tmp_path: Path) -> None:
    found = trials("paper")[:10]
    ours = write_run(tmp_path / "a", rows(found, lambda i: found[i].repeat == 0), settings("paper"))
    theirs = write_run(tmp_path / "b", rows(found, lambda i: found[i].repeat == 1), settings("paper"))
    line = compare(ours, theirs).lines[-1]
    assert (line.only, line.only_other, line.episodes) == (5, 5, 10)


def test_what_only_one_has_is_left_out_and_told(tmp_path: Path) -> None:
    found = trials("widowx")
    ours, theirs = write_run(tmp_path / "a", rows(found[:30])), write_run(tmp_path / "b", rows(found[20:35]))
    comparison = compare(ours, theirs)
    assert (comparison.only_one, comparison.only_other) == (20, 5)
    assert comparison.lines[-1].episodes == 10
    assert "left out: 20 episodes of this and 5 of other alone" in as_text(comparison, ours, theirs)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    ours = write_run(tmp_path / "a", rows(of_task("widowx", "stack_cube", 4)))
    strangers = write_run(tmp_path / "b", rows(of_task("widowx", "spoon_on_towel", 4)))
    seeded = write_run(tmp_path / "c", [row(t, environment_seed=99) for t in of_task("widowx", "stack_cube", 4)])
    with pytest.raises(UserError, match="no episode in common"):
        compare(ours, strangers)
    with pytest.raises(UserError, match=r"trial 48 \(stack_cube\) of .* another seed of the environment"):
        compare(ours, seeded)


def test_settings_that_differ_besides_the_policy_are_told(tmp_path: Path) -> None:
    found = of_task("widowx", "stack_cube", 4)
    ours = write_run(tmp_path / "a", rows(found), settings(name="first"))
    there = settings(name="second", until="success", simulator={"shader": "rt"})
    there["conventions"]["sticky"] = 1
    theirs = write_run(tmp_path / "b", rows(found), there)
    comparison = compare(ours, theirs)
    assert comparison.differences == (
        Difference("until", "limit", "success"),
        Difference("conventions.sticky", 15, 1),
        Difference("simulator.shader", "ibl", "rt"),
    )
    text = as_text(comparison, ours, theirs)
    assert "conventions.sticky  15" in text and "this:  first" in text and "other: second" in text
    assert compare(ours, ours).differences == ()
    assert "all settings but the policy are the same" in as_text(compare(ours, ours), ours, ours)


def test_a_setting_that_only_one_has_differs() -> None:
    assert differences({"simulator": {}}, {"simulator": {"shader": "rt"}}) == (
        Difference("simulator.shader", None, "rt"),
    )
