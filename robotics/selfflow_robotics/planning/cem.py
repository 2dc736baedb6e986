"""The cross-entropy method (Rubinstein 1999; for plans: Pinneri et al. 2020, whose best-candidate answer this has)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfflow_mm.errors import UserError

from .planner import Bounds, Objective, Plan, costs_of, generators, start_of

__all__ = ["CEM"]


@dataclass(frozen=True)
class CEM:
    """Draw candidates from a Gaussian, fit it to the best of them, and again; the best candidate of all is the answer.

    The first candidate of every iteration is the Gaussian's mean, so the answer is at least as good as the start.

    Attributes:
        samples: S, candidates in an iteration.
        iterations: how often; ``samples * iterations`` futures are imagined.
        elites: candidates to which the Gaussian is fitted.
        momentum: share of the old mean and deviation that stays, in [0, 1).
        spread: first deviation, in halves of the bounds' range.
        least: deviation that always stays, in the same unit.
    """

    samples: int = 64
    iterations: int = 5
    elites: int = 8
    momentum: float = 0.1
    spread: float = 0.5
    least: float = 0.01

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 1 <= self.elites <= self.samples:
            raise UserError(
                f"CEM takes at least 1 iteration and 1 elite, and no more elites than samples; got {self.iterations} "
                f"iterations, {self.elites} elites, {self.samples} samples"
            )
        if not (0 <= self.momentum < 1 and self.spread > 0 and self.least >= 0):
            raise UserError(
                f"CEM takes a momentum in [0, 1), a spread above 0 and a least deviation of at least 0; got "
                f"{self.momentum}, {self.spread} and {self.least}"
            )

    def plan(
        self,
        objective: Objective,
        bounds: Bounds,
        horizon: int,
        seeds: Sequence[int],
        start: np.ndarray | None = None,
    ) -> Plan:
        mean = start_of(start, bounds, len(seeds), horizon)
        deviation = np.broadcast_to(self.spread * bounds.half, mean.shape)
        draws = generators(seeds)
        best, least = mean, np.full(len(seeds), np.inf)
        for _ in range(self.iterations):
            noise = np.stack([draw.standard_normal((self.samples, *mean.shape[1:])) for draw in draws])
            candidates = bounds.clip(mean[:, None] + deviation[:, None] * noise)
            candidates[:, 0] = mean
            costs = costs_of(objective, candidates)
            order = np.argsort(costs, axis=1, kind="stable")[:, : self.elites]
            elite = np.take_along_axis(candidates, order[..., None, None], axis=1)
            elite_costs = np.take_along_axis(costs, order, axis=1)
            better = elite_costs[:, 0] < least
            best = np.where(better[:, None, None], elite[:, 0], best)
            least = np.where(better, elite_costs[:, 0], least)
            allowed = np.isfinite(elite_costs)[..., None, None]  # a candidate that is never chosen teaches nothing
            fitted = elite.mean(axis=1, where=allowed), elite.std(axis=1, where=allowed)
            mean = self.momentum * mean + (1 - self.momentum) * fitted[0]
            deviation = self.momentum * deviation + (1 - self.momentum) * fitted[1]
            deviation = np.maximum(deviation, self.least * bounds.half)
        return Plan(best, least)
