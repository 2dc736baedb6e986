"""ODE solvers from noise (level 1) to data (level 0), with a schedule of levels per modality.

Because every token has its own level, a modality may run ahead of another: sound that starts when the
picture is half clear sees what it must fit. A schedule is a list of times per modality; solvers never
look inside the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import UserError
from .timesteps import shift

#: modality -> values ``(B, N, C)``, and modality -> level (a number): gives velocities.
VelocityFn = Callable[[dict[str, Tensor], dict[str, float]], dict[str, Tensor]]


def schedule(steps: int, a: float = 1.0, span: tuple[float, float] = (0.0, 1.0)) -> list[float]:
    """``steps + 1`` levels from 1 to 0, evenly spaced before the shift ``a``.

    ``span`` is the part of the run during which the modality moves: (0, 0.6) is clean after 60 % of the steps,
    (0.4, 1) stays noise for the first 40 %.
    """
    begin, end = span
    if steps < 1 or not 0 <= begin < end <= 1:
        raise UserError(f"a schedule needs steps >= 1 and a span 0 <= begin < end <= 1, got {steps} and {span}")
    progress = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    moved = ((progress - begin) / (end - begin)).clamp(0, 1)
    return shift(1 - moved, a).tolist()


def euler(f: VelocityFn, x: dict[str, Tensor], times: Mapping[str, list[float]]) -> dict[str, Tensor]:
    """First order: ``x <- x + (t' - t) v(x, t)``, one model call per step."""
    for now, then in _steps(times):
        v = f(x, now)
        x = {m: x[m] + (then[m] - now[m]) * v[m] for m in x}
    return x


def heun(f: VelocityFn, x: dict[str, Tensor], times: Mapping[str, list[float]]) -> dict[str, Tensor]:
    """Second order (Heun's trapezoid): two model calls per step."""
    for now, then in _steps(times):
        v = f(x, now)
        guess = {m: x[m] + (then[m] - now[m]) * v[m] for m in x}
        w = f(guess, then)
        x = {m: x[m] + (then[m] - now[m]) * (v[m] + w[m]) / 2 for m in x}
    return x


def _steps(times: Mapping[str, list[float]]) -> list[tuple[dict[str, float], dict[str, float]]]:
    count = len(next(iter(times.values())))
    return [({m: t[i] for m, t in times.items()}, {m: t[i + 1] for m, t in times.items()}) for i in range(count - 1)]


SOLVERS: dict[str, Callable[[VelocityFn, dict[str, Tensor], Mapping[str, list[float]]], dict[str, Tensor]]] = {
    "euler": euler,
    "heun": heun,
}
