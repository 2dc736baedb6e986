"""stable-worldmodel's interface: what its solvers hand over and what they expect, without the package."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from selfflow_mm.errors import UserError
from selfflow_robotics.planning import (
    CEM,
    ActionPenalty,
    ActionScaler,
    Aim,
    Bounds,
    GoalImageCost,
    ImaginedCost,
    Solver,
)
from selfflow_robotics.planning.information import aims_of, pictures_of
from tests.robotics.dreams.dots import HIGH, LOW, PIXELS, DotWorld, spot

IMAGES = np.stack([spot(12, 16), spot(10, 14)])
GOALS = np.stack([spot(9, 13), spot(13, 18)])


def expanded(array: np.ndarray, samples: int, history: int = 1) -> torch.Tensor:
    """``(B, ...)`` as a solver hands it over, with older pictures that must not count."""
    old = np.zeros_like(array)
    stacked = torch.from_numpy(np.stack([old] * (history - 1) + [array], axis=1))
    return stacked.unsqueeze(1).expand(len(array), samples, *stacked.shape[1:])


def test_get_cost_is_the_cost_of_what_is_imagined():
    cost = ImaginedCost(DotWorld(), GoalImageCost(), seed=3)
    candidates = torch.from_numpy(np.random.default_rng(0).uniform(-0.2, 0.2, (2, 4, 3, 7)).astype(np.float32))
    info = {"pixels": expanded(IMAGES, 4, history=2), "goal": expanded(GOALS, 4), "id": torch.zeros(2, 4, 1)}
    found = cost.get_cost(info, candidates)
    assert found.shape == (2, 4) and found.dtype == torch.float32
    expected = cost(list(IMAGES), candidates.numpy(), [Aim("", goal) for goal in GOALS], [3, 3])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    first = {name: values.permute(0, 1, 2, 5, 3, 4) for name, values in info.items() if name != "id"}
    torch.testing.assert_close(cost.get_cost(first, candidates), found, rtol=0, atol=0)
    plain = {name: values[:, :, -1].numpy() for name, values in info.items() if name != "id"}
    result = cost.get_cost(plain, candidates.numpy())
    assert isinstance(result, np.ndarray) and np.array_equal(result, expected)
    alone = cost.get_cost({name: values[1:] for name, values in info.items()}, candidates[1:])
    torch.testing.assert_close(alone, found[1:], rtol=0, atol=0)


def test_blocks_of_actions_are_taken_apart_and_units_undone():
    cost = ImaginedCost(DotWorld(), ActionPenalty(size=1.0))
    raw = np.random.default_rng(0).uniform(LOW, HIGH, (2, 3, 4, 7)).astype(np.float32)
    info = {"pixels": expanded(IMAGES, 3)}
    whole = cost.get_cost(info, torch.from_numpy(raw))
    np.testing.assert_allclose(whole.numpy(), np.square(raw).mean(axis=(2, 3)), rtol=1e-5)
    blocks = cost.get_cost(info, torch.from_numpy(raw.reshape(2, 3, 2, 14)))
    torch.testing.assert_close(blocks, whole, rtol=0, atol=0)
    scaler = ActionScaler(Bounds(LOW, HIGH))
    scaled = ImaginedCost(DotWorld(), ActionPenalty(size=1.0), scaler=scaler)
    again = scaled.get_cost(info, torch.from_numpy(scaler.transform(raw)))
    torch.testing.assert_close(again, whole, rtol=1e-5, atol=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7))
def test_scaling_is_undone(values):
    scaler = ActionScaler(Bounds(LOW, HIGH))
    raw = scaler.inverse_transform(values)
    assert np.all(raw >= np.float32(LOW)) and np.all(raw <= np.float32(HIGH))
    np.testing.assert_allclose(scaler.transform(raw), values, atol=1e-6)
    np.testing.assert_array_equal(scaler.inverse_transform(np.full(7, 9.0)), np.float32(HIGH))


def test_instructions_come_as_strings_in_any_form():
    for words in (["push", "pull"], np.array([["push"] * 3, ["pull"] * 3]), np.array([["push"], ["pull"]], object)):
        assert [aim.instruction for aim in aims_of({"instruction": words}, 2)] == ["push", "pull"]
    assert [aim.goal for aim in aims_of({}, 2)] == [None, None]


def test_what_cannot_be_planned_on_is_refused():
    cost = ImaginedCost(DotWorld(), GoalImageCost())
    candidates = torch.zeros(2, 3, 4, 7)
    with pytest.raises(UserError, match="planning needs 'pixels'"):
        cost.get_cost({"proprio": torch.zeros(2, 3, 1)}, candidates)
    with pytest.raises(UserError, match="'pixels' is of float32; .* uint8"):
        cost.get_cost({"pixels": torch.zeros(2, 3, 1, 3, 24, 32)}, candidates)
    with pytest.raises(UserError, match=r"candidates are .* \(problems, samples, horizon, 7|candidates are"):
        cost.get_cost({"pixels": expanded(IMAGES, 3)}, torch.zeros(2, 3, 4, 6))
    with pytest.raises(UserError, match="not finite"):
        cost.get_cost({"pixels": expanded(IMAGES, 3)}, torch.full((2, 3, 4, 7), torch.nan))
    with pytest.raises(UserError, match="channels first; got"):
        pictures_of({"pixels": np.zeros((2, 24, 32, 3), np.uint8)}, "pixels", 2)


def configured(planner: CEM, seed: int = 0, block: int = 1, envs: int = 2) -> Solver:
    solver = Solver(planner, ImaginedCost(DotWorld(noise=False), GoalImageCost()), seed)
    space = spaces.Box(np.tile(np.float32(LOW), (envs, 1)), np.tile(np.float32(HIGH), (envs, 1)))
    config = SimpleNamespace(horizon=2, receding_horizon=1, action_block=block)
    solver.configure(action_space=space, n_envs=envs, config=config)
    return solver


@pytest.mark.parametrize("block", [1, 2])
def test_our_solver_plans_to_the_goals(block):
    solver = configured(CEM(64, 8, 8), block=block)
    assert (solver.action_dim, solver.n_envs, solver.horizon) == (7 * block, 2, 2)
    info = {"pixels": torch.from_numpy(IMAGES[:, None]), "goal": GOALS[:, None], "names": ["a", "b"]}
    found = solver(info)
    actions = found["actions"]
    assert actions.shape == (2, 2, 7 * block) and actions.dtype == torch.float32 and len(found["costs"]) == 2
    moved = PIXELS * actions.numpy().reshape(2, -1, 7)[..., :2].sum(axis=1)
    np.testing.assert_allclose(moved, [[3, 3], [-3, -4]], atol=0.7)


def test_a_warm_start_of_any_length_and_seeds():
    info = {"pixels": torch.from_numpy(IMAGES[:, None]), "goal": torch.from_numpy(GOALS[:, None])}
    first, second = configured(CEM(8, 2, 3)), configured(CEM(8, 2, 3))
    plan = first.solve(info)["actions"]
    torch.testing.assert_close(second.solve(info)["actions"], plan, rtol=0, atol=0)
    assert not torch.equal(second.solve(info)["actions"], plan)  # another call draws others
    assert not torch.equal(configured(CEM(8, 2, 3), seed=1).solve(info)["actions"], plan)
    rest = torch.full((2, 1, 7), 0.05)
    started = configured(CEM(1, 1, 1)).solve(info, init_action=rest)["actions"]  # one sample, which is the start
    torch.testing.assert_close(started[:, :1], rest)
    torch.testing.assert_close(started[:, 1:, :6], torch.zeros(2, 1, 6))


def test_spaces_without_bounds_are_refused():
    solver = Solver(CEM(), ImaginedCost(DotWorld(), GoalImageCost()))
    config = SimpleNamespace(horizon=2, action_block=1)
    with pytest.raises(UserError, match="continuous actions, a Box"):
        solver.configure(action_space=spaces.Discrete(3), n_envs=1, config=config)
    with pytest.raises(UserError, match="finite"):
        solver.configure(action_space=spaces.Box(-np.inf, np.inf, (1, 7)), n_envs=1, config=config)
