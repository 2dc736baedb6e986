"""Actions in units of their bounds, for planners that search around zero with a deviation of one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .planner import Bounds

__all__ = ["ActionScaler"]


class ActionScaler:
    """The middle of the bounds is 0, their ends are -1 and 1; columns that cannot move are 0.

    stable-worldmodel's solvers search in such units, and its policies undo them by what they find under
    ``process["action"]``: give the same scaler to both, :class:`selfflow_robotics.planning.ImaginedCost` and
    ``WorldModelPolicy(process={"action": scaler})``. It has scikit-learn's two methods.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._half = np.where(bounds.half > 0, bounds.half, 1.0)

    def transform(self, actions: ArrayLike) -> np.ndarray:
        """``(..., D)`` in raw units -> in units of the bounds, float32."""
        return ((np.asarray(actions, np.float64) - self._bounds.middle) / self._half).astype(np.float32)

    def inverse_transform(self, actions: ArrayLike) -> np.ndarray:
        """``(..., D)`` in units of the bounds -> in raw units, float32; beyond the bounds it is cut to them."""
        raw = np.asarray(actions, np.float64) * self._bounds.half + self._bounds.middle
        return self._bounds.clip(raw).astype(np.float32)
