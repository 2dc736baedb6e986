"""Motions relative to the step before, or to where their chunk begins.

Robots are told by how much to move at each step. A model may see the sums of these motions since the chunk's beginning
instead (the "relative trajectory" of UMI, Chi et al. 2024, arXiv:2402.10329): then one action says where the hand is to
be, which a picture shows, and an error of one action is not carried on to all that follow. The sums are a linear map of
the motions, rotations included, and so lose nothing; they differ in what noise covers and a squared error weighs.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

__all__ = ["RelativeTo", "from_start", "from_step", "reach"]

RelativeTo = Literal["step", "chunk"]


def reach(horizon: int) -> float:
    """What sums of a chunk of ``horizon`` actions are divided by, to be about as large as single normalised motions.

    Normalised motions have deviations of about 0.4 (their 1 % and 99 % quantiles are at -1 and 1) and neighbours are
    alike: a third of the square root is half-way between independent steps and a straight line at the horizons in use.
    """
    return max(1.0, math.sqrt(horizon) / 3)


def from_start(steps: np.ndarray, motions: int, scale: float) -> np.ndarray:
    """Motions ``(..., T, D)``, each from the step before -> from the chunk's beginning, divided by ``scale``.

    Args:
        motions: the first so many of the D numbers are summed; the rest (a gripper) stay as they are.
    """
    path = steps.copy()
    path[..., :motions] = np.cumsum(steps[..., :motions], axis=-2) / scale
    return path


def from_step(path: np.ndarray, motions: int, scale: float) -> np.ndarray:
    """The inverse of :func:`from_start`."""
    steps = path.copy()
    steps[..., :motions] = np.diff(path[..., :motions], axis=-2, prepend=0) * scale
    return steps
