"""What planners share: bounds of actions, what they minimise, what they answer, and how costs are checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import WorldModelAbout

__all__ = ["Bounds", "Objective", "Plan", "Planner", "costs_of", "generators", "start_of"]

#: Candidates ``(B, S, T, D)`` of B problems -> costs ``(B, S)``; row b depends on problem b alone.
Objective = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Bounds:
    """Lowest and highest value of each action column, ``(D,)`` float64 in raw units, both finite.

    Raises:
        UserError: they are not.
    """

    low: np.ndarray
    high: np.ndarray

    def __init__(self, low: Sequence[float] | np.ndarray, high: Sequence[float] | np.ndarray) -> None:
        object.__setattr__(self, "low", np.array(low, np.float64))
        object.__setattr__(self, "high", np.array(high, np.float64))
        if self.low.ndim != 1 or self.low.shape != self.high.shape or not len(self.low):
            raise UserError(f"bounds of actions are two lists of one number per column, got {low} and {high}")
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all() and np.all(self.low <= self.high)):
            raise UserError(f"bounds of actions are finite, the low ones under the high ones; got {low} and {high}")

    @classmethod
    def of(cls, about: WorldModelAbout) -> Bounds:
        """The range that a world model was trained on.

        Raises:
            UserError: it does not tell.
        """
        if len(about.action_low) != len(about.action_names) or len(about.action_high) != len(about.action_names):
            raise UserError(f"the world model '{about.name}' does not tell the range of its actions; pass bounds")
        return cls(about.action_low, about.action_high)

    @property
    def middle(self) -> np.ndarray:
        return (self.low + self.high) / 2

    @property
    def half(self) -> np.ndarray:
        """Half of the range."""
        return (self.high - self.low) / 2

    def clip(self, actions: np.ndarray) -> np.ndarray:
        return np.clip(actions, self.low, self.high)


@dataclass(frozen=True, eq=False)
class Plan:
    """What a planner found: ``actions (B, T, D)`` float64 within the bounds, and what they ``cost (B,)``."""

    actions: np.ndarray
    cost: np.ndarray


class Planner(Protocol):
    """Searches the sequence of actions that costs least."""

    def plan(
        self,
        objective: Objective,
        bounds: Bounds,
        horizon: int,
        seeds: Sequence[int],
        start: np.ndarray | None = None,
    ) -> Plan:
        """Solve B problems at once.

        Args:
            objective: what to minimise.
            bounds: no candidate leaves them.
            horizon: T.
            seeds: one per problem; row b of the plan is a function of problem b, its seed and its start.
            start: ``(B, t, D)`` where to begin, t <= T: the rest of the plan before (a warm start by shifting), or what
                a policy proposes. What it leaves open begins in the middle of the bounds.

        Raises:
            UserError: a cost is NaN, or every candidate costs infinity.
        """
        ...


def start_of(start: np.ndarray | None, bounds: Bounds, problems: int, horizon: int) -> np.ndarray:
    """``(B, T, D)`` float64 in the bounds, where a search begins."""
    if horizon < 1:
        raise UserError(f"a plan has at least 1 action, got a horizon of {horizon}")
    mean = np.broadcast_to(bounds.middle, (problems, horizon, len(bounds.low))).copy()
    if start is not None:
        given = start.shape[1] if start.ndim == 3 else horizon + 1
        if given > horizon or start.shape != (problems, given, len(bounds.low)):
            raise UserError(f"a start is ({problems}, up to {horizon}, {len(bounds.low)}), got {start.shape}")
        mean[:, :given] = bounds.clip(start)
    return mean


def generators(seeds: Sequence[int]) -> list[np.random.Generator]:
    """One per problem, so that no problem's draws depend on the others."""
    return [np.random.Generator(np.random.Philox(seed)) for seed in seeds]


def costs_of(objective: Objective, candidates: np.ndarray) -> np.ndarray:
    """``(B, S)`` float64 costs, checked.

    Raises:
        UserError: NaN, or a problem whose candidates all cost infinity.
    """
    costs = np.asarray(objective(candidates), np.float64)
    if costs.shape != candidates.shape[:2]:
        raise UserError(f"a cost of candidates {candidates.shape} is {candidates.shape[:2]}, got {costs.shape}")
    if np.isnan(costs).any():
        raise UserError(f"{int(np.isnan(costs).sum())} of {costs.size} candidates cost NaN; a cost is a number")
    if not np.isfinite(costs).any(axis=1).all():
        raise UserError("every candidate costs infinity, so none is better than another")
    return costs
