"""The linear path between data (t = 0) and noise (t = 1), and the velocity along it (sec. 3.1).

``x_t = (1 - t) x0 + t x1`` with ``x1 ~ N(0, I)`` (eq. 1) and ``v = dx/dt = x1 - x0`` (eq. 2).
Levels broadcast: ``t`` is ``(B, N)``, values are ``(B, N, C)``.
"""

from __future__ import annotations

from torch import Tensor


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """The point at level ``t``: ``(1 - t) x0 + t x1``."""
    t = t.unsqueeze(-1)
    return (1 - t) * x0 + t * x1


def velocity(x0: Tensor, x1: Tensor) -> Tensor:
    """The target ``x1 - x0``, from data towards noise."""
    return x1 - x0
