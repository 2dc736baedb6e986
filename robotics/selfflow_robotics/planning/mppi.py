"""Model predictive path integral control (Williams et al. 2017, "Information Theoretic MPC")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfflow_mm.errors import UserError

from .planner import Bounds, Objective, Plan, costs_of, generators, start_of

__all__ = ["MPPI"]


@dataclass(frozen=True)
class MPPI:
    """Draw candidates about a mean and move it to their average, weighted by ``exp(-cost / temperature)``.

    Williams et al. 2017, algorithm 2, without the term that charges for leaving the mean (their gamma is 0). With many
    candidates, a quadratic cost and no bounds in the way, an iteration gives the mean of the product of the Gaussian
    and ``exp(-cost / temperature)``.

    Attributes:
        samples: S, candidates in an iteration; the first is the mean itself.
        iterations: how often.
        temperature: lower follows the best candidates alone, higher averages over more of them.
        relative: the temperature is in standard deviations of the candidates' costs, so that it fits any cost; False
            takes it in the cost's own unit, as published.
        spread: deviation, in halves of the bounds' range; it stays.
    """

    samples: int = 64
    iterations: int = 5
    temperature: float = 0.3
    relative: bool = True
    spread: float = 0.3

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.samples < 1:
            raise UserError(f"MPPI takes at least 1 iteration and 1 sample, got {self.iterations} and {self.samples}")
        if not (self.temperature > 0 and self.spread > 0):
            raise UserError(f"MPPI's temperature and spread are above 0, got {self.temperature} and {self.spread}")

    def plan(
        self,
        objective: Objective,
        bounds: Bounds,
        horizon: int,
        seeds: Sequence[int],
        start: np.ndarray | None = None,
    ) -> Plan:
        mean = start_of(start, bounds, len(seeds), horizon)
        draws = generators(seeds)
        for _ in range(self.iterations):
            noise = np.stack([draw.standard_normal((self.samples, *mean.shape[1:])) for draw in draws])
            candidates = bounds.clip(mean[:, None] + self.spread * bounds.half * noise)
            candidates[:, 0] = mean
            weights = self._weights(costs_of(objective, candidates))
            mean = np.einsum("bs,bstd->btd", weights, candidates)
        mean = bounds.clip(mean)  # rounding may leave them by a hair
        return Plan(mean, np.asarray(objective(mean[:, None]), np.float64)[:, 0])

    def _weights(self, costs: np.ndarray) -> np.ndarray:
        """``(B, S)`` that sum to 1 in each row; 0 for candidates that cost infinity."""
        excess = costs - costs.min(axis=1, keepdims=True)
        temperature = np.full((len(costs), 1), self.temperature)
        if self.relative:
            deviation = excess.std(axis=1, keepdims=True, where=np.isfinite(excess))
            temperature = temperature * np.where(deviation > 0, deviation, 1.0)
        weights = np.exp(-excess / temperature)
        return weights / weights.sum(axis=1, keepdims=True)
