"""Rates, settings kept apart, and means, against hand calculations and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.evaluation.intervals import mover, wilson
from selfflow_robotics.simpler import trials
from selfflow_robotics.simpler.summary import MEANS, PAPER, setting_of, summarise
from tests.robotics.simpler.rows import of_task, row, rows

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_a_task_by_hand() -> None:
    found = rows(of_task("widowx", "stack_cube", 8), lambda i: i < 3)
    found[5] = row(of_task("widowx", "stack_cube")[5], success_any=True, steps=20)
    (group,) = summarise(found).groups
    (line,) = group.tasks
    assert (group.name, line.task, line.variant, line.episodes, line.successes) == ("WidowX", "stack_cube", "", 8, 3)
    assert line.share == 0.375 and line.successes_any == 4 and line.steps == (7 * 60 + 20) / 8
    # Wilson's interval is where |share - p| = 1.96 sqrt(p (1 - p) / n).
    for p in (line.low, line.high):
        assert abs(0.375 - p) == pytest.approx(1.959963985 * math.sqrt(p * (1 - p) / 8))
    assert group.means == ()  # of four tasks, and three have no episode
    assert summarise([]).groups == ()


def test_visual_matching_and_variant_aggregation_are_never_added_up() -> None:
    found = trials("all")
    summary = summarise(rows(found, lambda i: found[i].arrangement.overlay != ""))
    assert [group.name for group in summary.groups] == ["visual matching", "variant aggregation", "WidowX"]
    matching, variants, _ = summary.groups
    assert [(line.task, line.episodes, line.share) for line in matching.tasks] == [
        ("pick_coke_can", 300, 1.0),
        ("move_near", 240, 1.0),
        ("open_drawer", 108, 1.0),
        ("close_drawer", 108, 1.0),
        ("place_apple_in_closed_top_drawer", 108, 1.0),
    ]
    assert {line.share for line in variants.tasks} == {0.0} and sum(line.episodes for line in variants.tasks) == 1722
    assert len([line for line in variants.variants if line.task == "pick_coke_can"]) == 9


@pytest.mark.parametrize(
    ("suite", "settings"),
    [
        ("google-visual-matching", {"visual matching"}),
        ("google-variant-aggregation", {"variant aggregation"}),
        ("google-cameras", {"cameras"}),
        ("widowx", {"WidowX"}),
        ("paper", {"visual matching"}),
        ("tabletop", {"tabletop"}),
        ("tabletop-variants", {"tabletop"}),
    ],
)
def test_every_row_of_a_suite_has_its_setting(suite: str, settings: set[str]) -> None:
    assert {setting_of(one) for one in rows(trials(suite))} == settings


def test_an_episode_of_no_known_suite_is_a_group_of_its_own() -> None:
    known, strange = rows(of_task("tabletop", "pick", 2))
    strange = row(of_task("tabletop", "pick")[1], environment="Elsewhere-v0")
    assert [group.name for group in summarise([known, strange]).groups] == ["tabletop", "Elsewhere-v0"]


def test_the_google_robots_means_by_hand() -> None:
    good = {"pick_coke_can": 150, "move_near": 60, "open_drawer": 27, "close_drawer": 81}
    found = [
        one
        for task, number in good.items()
        for one in rows(of_task("google-visual-matching", task), lambda i, number=number: i < number)  # type: ignore[misc]
    ]
    (group,) = summarise(found).groups
    drawers, three = group.means
    assert drawers.name == "drawers (mean of open_drawer and close_drawer)" and drawers.share == pytest.approx(0.5)
    assert three.name == "mean of 3 tasks (pick_coke_can, move_near, drawers)" and three.episodes == 756
    # coke 150/300 = .5, near 60/240 = .25, drawers (27/108 + 81/108) / 2 = .5
    assert three.share == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    # Every p - l and u - p, squared, with the weights 1/3, 1/3, 1/6, 1/6.
    cases = [(150, 300, 1 / 3), (60, 240, 1 / 3), (27, 108, 1 / 6), (81, 108, 1 / 6)]
    below = sum((w * (k / n - wilson(k, n)[0])) ** 2 for k, n, w in cases)
    above = sum((w * (wilson(k, n)[1] - k / n)) ** 2 for k, n, w in cases)
    assert (three.low, three.high) == pytest.approx((three.share - below**0.5, three.share + above**0.5))

    apple = rows(of_task("google-visual-matching", "place_apple_in_closed_top_drawer"), lambda i: i < 54)
    four = summarise(found + apple).groups[0].means[2]
    assert four.name == "mean of 4 tasks (pick_coke_can, move_near, drawers, place_apple_in_closed_top_drawer)"
    assert four.share == pytest.approx((0.5 + 0.25 + 0.5 + 0.5) / 4)


def test_a_mean_exists_only_where_all_its_tasks_have_episodes() -> None:
    found = trials("widowx")
    (whole,) = summarise(rows(found, lambda i: i % 2 == 0)).groups
    (mean,) = whole.means
    assert mean.name == "mean of 4 tasks (spoon_on_towel, carrot_on_plate, stack_cube, put_eggplant_in_basket)"
    assert mean.share == 0.5 and mean.episodes == 96
    assert summarise(rows(found[:72])).groups[0].means == ()
    five = summarise(rows(trials("tabletop"), lambda i: i < 100)).groups[0].means[-1]
    assert five.name.startswith("mean of 5 tasks (pick, move_near") and five.share == pytest.approx(1 / 5)
    assert all(sum(mean.weights().values()) == pytest.approx(1) for mean in MEANS)


def test_the_papers_groups() -> None:
    found = trials("paper")
    good = ("pick_coke_can", "close_drawer")
    summary = summarise(rows(found, lambda i: found[i].arrangement.task in good), "paper")
    group = summary.group(PAPER)
    assert group is not None and len(summary.groups) == 1
    assert {line.task: (line.episodes, line.share) for line in group.tasks} == {
        "pick_coke_can": (30, 1.0),
        "drawers": (36, 0.5),
        "move_near": (20, 0.0),
        "place_apple_in_closed_top_drawer": (14, 0.0),
    }
    (mean,) = group.means
    assert mean.share == pytest.approx((1 + 0.5 + 0 + 0) / 4) and mean.name.startswith("mean of 4 groups (")
    without_apple = [one for one in rows(found) if one.task != "place_apple_in_closed_top_drawer"]
    assert summarise(without_apple, "paper").groups[0].means == ()


@given(counts)
def test_of_one_task_the_interval_is_wilsons(count: tuple[int, int]) -> None:
    interval = wilson(*count)
    assert mover([count[0] / count[1]], [interval], [1.0]) == pytest.approx((count[0] / count[1], *interval))


@given(st.lists(counts, min_size=1, max_size=6))
def test_the_interval_of_a_mean_holds_it_and_lies_between_the_tasks_limits(tasks: list[tuple[int, int]]) -> None:
    shares, intervals = [k / n for k, n in tasks], [wilson(*count) for count in tasks]
    weights = [1 / len(tasks)] * len(tasks)
    mean, low, high = mover(shares, intervals, weights)
    assert mean == pytest.approx(np.mean(shares)) and low <= mean <= high
    # Independent errors partly cancel: never worse than all limits at once.
    assert low >= np.mean([one for one, _ in intervals]) - 1e-12
    assert high <= np.mean([one for _, one in intervals]) + 1e-12


def test_the_interval_of_a_mean_covers_the_truth() -> None:
    """Of 2,000 evaluations of three tasks about 95 % have the true mean in their interval."""
    truth, n = np.array([0.05, 0.5, 0.9]), 40
    drawn = np.random.default_rng(0).binomial(n, truth, size=(2000, 3))
    hits = 0
    for ks in drawn:
        _, low, high = mover([k / n for k in ks], [wilson(int(k), n) for k in ks], [1 / 3] * 3)
        hits += low <= truth.mean() <= high
    assert 0.93 < hits / 2000 < 0.975
