"""CEM and MPPI against problems whose answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.interfaces import WorldModelAbout
from selfflow_robotics.planning import CEM, MPPI, Bounds
from tests.robotics.dreams.dots import HIGH, LOW

WIDE = Bounds([-1.0, -2.0], [1.0, 2.0])
PLANNERS = [CEM(samples=32, iterations=4, elites=6), MPPI(samples=32, iterations=4)]


def quadratic(goal: np.ndarray, weights: np.ndarray | float = 1.0):
    """Candidates (B, S, T, D) -> their weighted squared distance from ``goal``, broadcast."""
    return lambda candidates: (weights * np.square(candidates - goal)).sum(axis=(2, 3))


@pytest.mark.parametrize(
    "planner",
    [CEM(samples=200, iterations=25, elites=20, least=0.0), MPPI(samples=400, iterations=40, temperature=0.02)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_quadratic_cost_is_minimised(planner, seed):
    goal = np.array([[0.3, -1.2], [-0.6, 0.5], [0.1, 1.4]])
    plan = planner.plan(quadratic(goal, np.array([1.0, 3.0])), WIDE, 3, [seed])
    np.testing.assert_allclose(plan.actions[0], goal, atol=0.05 if isinstance(planner, CEM) else 0.15)
    assert plan.cost[0] == pytest.approx(np.sum([1.0, 3.0] * np.square(plan.actions[0] - goal)))


@pytest.mark.parametrize("planner", [CEM(samples=200, iterations=25, elites=20), MPPI(samples=400, iterations=40)])
def test_an_optimum_beyond_the_bounds_becomes_the_nearest_corner(planner):
    plan = planner.plan(quadratic(np.array([5.0, -9.0])), WIDE, 2, [0])
    np.testing.assert_allclose(plan.actions[0], [[1.0, -2.0]] * 2, atol=0.1)


def test_costs_that_couple_steps_are_minimised():
    """min (sum a - 1.2)^2 + r sum a^2 over T steps has a = 1.2 / (T + r) in each of them."""
    steps, r = 4, 0.5

    def objective(candidates: np.ndarray) -> np.ndarray:
        return np.square(candidates.sum(axis=2)[..., 0] - 1.2) + r * np.square(candidates).sum(axis=(2, 3))

    bounds = Bounds([-1.0], [1.0])
    for planner in (CEM(300, 30, 30, least=0.0), MPPI(600, 60, temperature=0.02)):
        plan = planner.plan(objective, bounds, steps, [0])
        np.testing.assert_allclose(plan.actions[0, :, 0], 1.2 / (steps + r), atol=0.06)
        assert plan.cost[0] - r * 1.2**2 / (steps + r) < 0.02


@pytest.mark.parametrize(("temperature", "start"), [(0.5, 0.0), (2.0, 0.4)])
def test_one_iteration_of_mppi_is_the_product_of_two_gaussians(temperature, start):
    """N(m, s^2) times exp(-q (a - g)^2 / t) has the mean (m / s^2 + 2 q g / t) / (1 / s^2 + 2 q / t)."""
    bounds = Bounds([-50.0], [50.0])  # the deviation, 0.02 halves of the range, is 1
    q, goal = 1.5, 2.0
    planner = MPPI(samples=200_000, iterations=1, temperature=temperature, relative=False, spread=0.02)
    plan = planner.plan(quadratic(np.array([goal]), q), bounds, 1, [0], np.full((1, 1, 1), start))
    expected = (start + 2 * q * goal / temperature) / (1 + 2 * q / temperature)
    assert plan.actions[0, 0, 0] == pytest.approx(expected, abs=0.02)


def test_one_iteration_of_cem_is_the_mean_of_a_truncated_gaussian():
    """The best half of N(0, 1) under the cost -a are its positive values, whose mean is sqrt(2 / pi)."""
    bounds = Bounds([-50.0], [50.0])
    means: list[float] = []

    def objective(candidates: np.ndarray) -> np.ndarray:
        means.append(float(candidates[0, 0, 0, 0]))  # the first candidate is the mean
        return -candidates.sum(axis=(2, 3))

    CEM(100_000, 2, elites=50_000, momentum=0.25, spread=0.02).plan(objective, bounds, 1, [0])
    assert means == [0.0, pytest.approx(0.75 * np.sqrt(2 / np.pi), abs=0.02)]


def test_a_relative_temperature_does_not_depend_on_the_costs_unit():
    goal = np.array([0.5, -0.5])
    plans = [MPPI(relative=relative).plan(quadratic(goal, unit), WIDE, 2, [3]).actions
             for relative in (True, False) for unit in (1.0, 1000.0)]  # fmt: skip
    np.testing.assert_allclose(plans[0], plans[1], atol=1e-9)
    assert np.abs(plans[2] - plans[3]).max() > 0.01


@given(
    problems=st.integers(1, 3),
    horizon=st.integers(1, 4),
    columns=st.integers(1, 3),
    kind=st.sampled_from(PLANNERS),
    seed=st.integers(0, 2**63 - 1),
)
def test_shapes_bounds_and_rows(problems, horizon, columns, kind, seed):
    random = np.random.default_rng(columns)
    low = random.uniform(-1, 0, columns)
    bounds = Bounds(low, low + random.uniform(0, 1, columns))
    goals = random.uniform(-1, 1, (problems, 1, horizon, columns))
    seeds = [(seed + row) % 2**63 for row in range(problems)]
    plan = kind.plan(quadratic(goals), bounds, horizon, seeds)
    assert plan.actions.shape == (problems, horizon, columns) and plan.cost.shape == (problems,)
    assert np.all(plan.actions >= bounds.low) and np.all(plan.actions <= bounds.high)
    for row in range(problems):  # a problem alone gives what it gives among others
        alone = kind.plan(quadratic(goals[row : row + 1]), bounds, horizon, seeds[row : row + 1])
        np.testing.assert_array_equal(alone.actions[0], plan.actions[row])


@pytest.mark.parametrize("planner", PLANNERS)
def test_seeds_decide(planner):
    objective = quadratic(np.array([0.3, -0.4]))
    first, again, other = (planner.plan(objective, WIDE, 2, [seed]).actions for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_start_is_where_the_search_begins_and_cem_never_loses_it():
    goal = np.array([[0.8, -1.8], [0.7, 1.7], [0.0, 0.0]])
    start = goal[None, :2]  # what is left of a plan; the third step begins in the middle, which is the goal too
    poor = CEM(samples=4, iterations=1, elites=2)
    np.testing.assert_array_equal(poor.plan(quadratic(goal), WIDE, 3, [0], start).actions[0], goal)
    assert poor.plan(quadratic(goal), WIDE, 3, [0]).cost[0] > 1
    near = MPPI(samples=16, iterations=1, temperature=1e-6).plan(quadratic(goal), WIDE, 3, [0], start)
    np.testing.assert_allclose(near.actions[0], goal, atol=1e-6)
    beyond = poor.plan(lambda candidates: np.zeros(candidates.shape[:2]), WIDE, 1, [0], np.full((1, 1, 2), 9.0))
    np.testing.assert_array_equal(beyond.actions[0, 0], WIDE.high)


def test_the_least_deviation_keeps_the_search_going():
    """One elite has no deviation: without a least one the search stops where its first candidates reach."""
    objective = quadratic(np.array([0.9]))
    bounds = Bounds([-1.0], [1.0])
    stuck, moving = (CEM(32, 20, 1, spread=0.1, least=least).plan(objective, bounds, 1, [0]) for least in (0.0, 0.1))
    assert stuck.cost[0] > 0.25 > 0.01 > moving.cost[0]


@pytest.mark.parametrize("planner", [CEM(64, 6, 8), MPPI(64, 6)])
def test_forbidden_candidates_are_never_chosen(planner):
    def objective(candidates: np.ndarray) -> np.ndarray:
        cost = np.square(candidates - 0.9).sum(axis=(2, 3))
        return np.where(candidates[..., 0].max(axis=2) > 0.5, np.inf, cost)  # a convex region is allowed

    plan = planner.plan(objective, Bounds([-1.0], [1.0]), 2, [0])
    assert np.isfinite(plan.cost).all() and plan.actions.max() <= 0.5 and plan.actions.min() > 0.1


@pytest.mark.parametrize("planner", PLANNERS)
def test_costs_that_say_nothing_are_refused(planner):
    for value, message in ((np.nan, "cost NaN"), (np.inf, "every candidate costs infinity")):
        with pytest.raises(UserError, match=message):
            planner.plan(lambda c, v=value: np.full(c.shape[:2], v), WIDE, 1, [0])
    with pytest.raises(UserError, match=r"a cost of candidates .* is \(1, 32\), got \(32,\)"):
        planner.plan(lambda c: np.zeros(c.shape[1]), WIDE, 1, [0])
    with pytest.raises(UserError, match="at least 1 action"):
        planner.plan(quadratic(np.zeros(2)), WIDE, 0, [0])
    with pytest.raises(UserError, match=r"a start is \(1, up to 1, 2\)"):
        planner.plan(quadratic(np.zeros(2)), WIDE, 1, [0], np.zeros((1, 2, 2)))


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (CEM, {"elites": 65}, "no more elites than samples"),
        (CEM, {"iterations": 0}, "at least 1 iteration"),
        (CEM, {"momentum": 1.0}, r"a momentum in \[0, 1\)"),
        (MPPI, {"temperature": 0.0}, "above 0"),
        (MPPI, {"samples": 0}, "1 sample"),
    ],
)
def test_settings_out_of_range_are_refused(make, settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_bounds():
    about = WorldModelAbout("dots", 24, 32, 5.0, 4, action_low=LOW, action_high=HIGH)
    bounds = Bounds.of(about)
    assert bounds.middle[6] == bounds.half[6] == 0.5
    with pytest.raises(UserError, match="does not tell the range"):
        Bounds.of(WorldModelAbout("blank", 24, 32, 5.0, 4))
    with pytest.raises(UserError, match="finite"):
        Bounds([0.0], [np.inf])
    with pytest.raises(UserError, match="finite, the low ones under"):
        Bounds([1.0], [0.0])
    with pytest.raises(UserError, match="one number per column"):
        Bounds([1.0], [2.0, 3.0])
