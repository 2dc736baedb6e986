"""The SDE sampler of the paper's ImageNet results, in our direction of time: from noise, t = 1, to data, t = 0.

Everything follows from the path's coefficients, alpha(t) = 1 - t and sigma(t) = t of x_t = alpha x0 + sigma x1 (eq. 1):

    v       = alpha' E[x0 | x] + sigma' E[x1 | x]             = E[x1 - x0 | x]          (eq. 2)
    E[x1|x] = (alpha v - alpha' x) / (alpha sigma' - alpha' sigma)  = x + (1 - t) v
    score   = grad log p_t(x) = -E[x1 | x] / sigma            = -(x + (1 - t) v) / t

The probability flow dx = v dt and, for any w(t) >= 0, the SDE that runs backwards in time

    dx = (v - w score) dt + sqrt(2 w) dB                                                (SiT, Ma et al. 2024, eq. 4)

have the same marginals p_t. A step of size h > 0 towards data is therefore

    x <- x - h v + h w score + sqrt(2 w h) z,   z ~ N(0, I).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..errors import UserError

#: Values ``(B, N, C)`` and a level (a number) -> velocity.
Velocity = Callable[[Tensor, float], Tensor]

#: The diffusion coefficient w(t) by name; "sigma", w = sigma(t), is the reference's choice.
DIFFUSION: dict[str, Callable[[float], float]] = {
    "sigma": lambda t: t,
    "constant": lambda t: 1.0,
    "decreasing": lambda t: (0.5 * (1 - math.cos(math.pi * t))) ** 2,
    "increasing-decreasing": lambda t: math.sin(math.pi * t) ** 2,
}


@dataclass(frozen=True)
class SDEConfig:
    """Settings of :func:`euler_maruyama`; the defaults are the paper's.

    Attributes:
        steps: model calls: ``steps - 1`` noisy moves and the last one.
        last_step: size of the last move, from this level to 0 along the mean.
        diffusion: a name in :data:`DIFFUSION`.
        norm: factor of w. 0 leaves the probability flow.
    """

    steps: int = 250
    last_step: float = 0.04
    diffusion: str = "sigma"
    norm: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise UserError(f"the SDE takes at least 2 steps, got {self.steps}")
        if not 0 < self.last_step < 1:
            raise UserError(f"the SDE's last step lies between 0 and 1, got {self.last_step}")
        if self.diffusion not in DIFFUSION:
            raise UserError(f"there is no diffusion form '{self.diffusion}'; one of {', '.join(DIFFUSION)}")
        if self.norm < 0:
            raise UserError(f"the diffusion's norm is at least 0, got {self.norm}")

    @property
    def levels(self) -> list[float]:
        """The level at each model call, even from 1 to ``last_step``."""
        h = (1 - self.last_step) / (self.steps - 1)
        return [1 - i * h for i in range(self.steps - 1)] + [self.last_step]


def euler_maruyama(
    velocity: Velocity, x: Tensor, noise: Callable[[int], Tensor], config: SDEConfig | None = None
) -> Tensor:
    """Carry noise to data by the SDE of the module's docstring.

    Args:
        velocity: the model, called once a step; never at t = 0.
        x: ``(B, N, C)`` standard normal noise.
        noise: step i, counted from 0 to ``steps - 2`` -> standard normal noise of x's shape. A function, so that it may
            be counter-based.
        config: None for the paper's settings.

    Returns:
        ``(B, N, C)``, data.
    """
    config = config or SDEConfig()
    levels = config.levels
    for i, (t, then) in enumerate(zip(levels, levels[1:], strict=False)):
        h = t - then
        x = x + h * _mean(velocity, x, t, config)
        # Out of place: x may still be the caller's tensor.
        x = x + math.sqrt(2 * _w(t, config) * h) * noise(i)
    return x + config.last_step * _mean(velocity, x, config.last_step, config)


def score(velocity: Tensor, x: Tensor, t: float) -> Tensor:
    """grad log p_t(x) of the velocity at x; t > 0."""
    return (x + (1 - t) * velocity) / -t


def _mean(velocity: Velocity, x: Tensor, t: float, config: SDEConfig) -> Tensor:
    v = velocity(x, t)
    return _w(t, config) * score(v, x, t) - v


def _w(t: float, config: SDEConfig) -> float:
    return config.norm * DIFFUSION[config.diffusion](t)
