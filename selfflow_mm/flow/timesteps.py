"""Distributions p(t) of the noise level, each as a quantile function of one uniform number.

A quantile function turns counter-based uniforms into timesteps, so a timestep needs no generator of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import UserError


def shift(t: Tensor, a: float) -> Tensor:
    """``s(a, t) = a t / (1 + (a - 1) t)``: a > 1 moves levels towards noise (SD3, eq. 23)."""
    return a * t / (1 + (a - 1) * t)


@dataclass(frozen=True)
class Timesteps:
    """p(t).

    Attributes:
        kind: ``uniform``; ``logit-normal``; ``plateau-logit-normal``, whose density stays constant after its mode.
        shift: the a of :func:`shift`, applied to the draw. 0 takes the tokenizer's ``train_shift``.
        mean, std: of the logit-normal's logit before the shift. The paper does not publish them; 0 and 1 are ours.
    """

    kind: Literal["uniform", "logit-normal", "plateau-logit-normal"] = "logit-normal"
    shift: float = 0.0
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise UserError(f"a timestep shift is positive (or 0 for the tokenizer's), got {self.shift}")
        if self.std <= 0:
            raise UserError(f"a logit-normal needs a positive std, got {self.std}")

    def quantile(self, u: Tensor) -> Tensor:
        """Timesteps of uniform numbers ``u`` in (0, 1); same shape, float32."""
        a = self.shift or 1.0
        if self.kind == "uniform":
            return shift(u, a)
        # A logit-normal shifted by a is the logit-normal with mean + log a.
        mean = self.mean + math.log(a)
        if self.kind == "logit-normal":
            return torch.sigmoid(mean + self.std * torch.special.ndtri(u))
        grid, cdf = _plateau_cdf(mean, self.std)
        grid, cdf = grid.to(u.device), cdf.to(u.device)
        i = torch.searchsorted(cdf, u.double().contiguous()).clamp(1, len(cdf) - 1)
        step = (u - cdf[i - 1]) / (cdf[i] - cdf[i - 1])
        return (grid[i - 1] + step * (grid[i] - grid[i - 1])).float()


def _plateau_cdf(mean: float, std: float, points: int = 20_001) -> tuple[Tensor, Tensor]:
    grid = torch.linspace(0, 1, points, dtype=torch.float64)
    t = grid.clamp(1e-9, 1 - 1e-9)
    density = torch.exp(-0.5 * ((torch.logit(t) - mean) / std) ** 2) / (t * (1 - t))
    density[0] = 0.0
    mode = int(density[:-1].argmax())
    density[mode:] = density[mode]
    cdf = torch.cat([density.new_zeros(1), torch.cumulative_trapezoid(density, grid)])
    return grid, cdf / cdf[-1]
