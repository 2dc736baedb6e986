"""Costs against hand calculations."""

from __future__ import annotations

import numpy as np
import pytest

from selfflow_mm.errors import UserError
from selfflow_robotics.planning import ActionPenalty, Aim, GoalImageCost, ScoreCost, WeightedSum

ACTIONS = np.zeros((2, 3, 7), np.float32)


def grey(*levels: int) -> np.ndarray:
    """A future of uniform pictures, (T, 4, 5, 3)."""
    return np.stack([np.full((4, 5, 3), level, np.uint8) for level in levels])


FUTURES = np.stack([grey(0, 0, 51), grey(102, 102, 102)])


def test_goal_pictures_by_pixels():
    aim = Aim("", grey(102)[0])
    np.testing.assert_allclose(GoalImageCost()(FUTURES, ACTIONS, aim), [0.2**2, 0], atol=1e-7)
    np.testing.assert_allclose(
        GoalImageCost(every=True)(FUTURES, ACTIONS, aim), [(0.16 + 0.16 + 0.04) / 3, 0], atol=1e-7
    )


def test_goal_pictures_by_what_an_encoder_gives():
    calls = []

    def encode(pictures: np.ndarray) -> np.ndarray:
        calls.append(len(pictures))
        return pictures.mean(axis=(1, 2, 3), dtype=np.float64)[:, None] / 51

    cost = GoalImageCost(grey(255)[0], encode=encode)
    np.testing.assert_allclose(cost(FUTURES, ACTIONS, Aim()), [16, 9])
    assert calls == [1, 1, 1]  # the goal, and the last picture of each future


def test_goals_of_instructions_and_of_other_sizes():
    cost = GoalImageCost({"dark": np.zeros((8, 10, 3), np.uint8), "light": np.full((8, 10, 3), 102, np.uint8)})
    np.testing.assert_allclose(cost(FUTURES, ACTIONS, Aim("dark")), [0.04, 0.16], atol=1e-7)
    np.testing.assert_allclose(cost(FUTURES, ACTIONS, Aim("light")), [0.04, 0], atol=1e-7)
    np.testing.assert_allclose(cost(FUTURES, ACTIONS, Aim("light", grey(0)[0])), [0.04, 0.16], atol=1e-7)
    with pytest.raises(UserError, match="no goal picture for the instruction 'grey'; there is for 'dark', 'light'"):
        cost(FUTURES, ACTIONS, Aim("grey"))
    with pytest.raises(UserError, match="needs one"):
        GoalImageCost()(FUTURES, ACTIONS, Aim("grey"))
    with pytest.raises(UserError, match="of uint8, got"):
        GoalImageCost(np.zeros((4, 5, 3)))(FUTURES, ACTIONS, Aim())


def test_scores():
    def score(image: np.ndarray, words: str) -> float:
        return float(image.mean()) * len(words)

    np.testing.assert_allclose(ScoreCost(score)(FUTURES, ACTIONS, Aim("ab")), [-102, -204])
    np.testing.assert_allclose(ScoreCost(score, every=True)(FUTURES, ACTIONS, Aim("a")), [-17, -102])


def test_action_penalties():
    actions = np.zeros((1, 3, 2))
    actions[0] = [[1, 9], [3, 9], [2, 1]]
    pictures = FUTURES[:1]
    cost = ActionPenalty(scale=(2.0, np.inf), size=1.0)
    np.testing.assert_allclose(cost(pictures, actions, Aim()), [(0.25 + 2.25 + 1) / 6])
    cost = ActionPenalty(change=2.0)
    np.testing.assert_allclose(cost(pictures, actions, Aim()), [2 * (4 + 1 + 0 + 64) / 4])
    np.testing.assert_allclose(cost(pictures, actions[:, :1], Aim()), [0])
    both = WeightedSum([(2.0, ActionPenalty(size=1.0)), (0.5, cost)])
    np.testing.assert_allclose(both(pictures, actions, Aim()), [2 * 177 / 6 + 0.5 * 34.5])
    for settings in ({"scale": 0.0}, {"size": -1.0}, {"change": np.inf}):
        with pytest.raises(UserError, match="an action penalty's"):
            ActionPenalty(**settings)
