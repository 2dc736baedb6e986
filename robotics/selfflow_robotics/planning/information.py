"""The dictionaries that stable-worldmodel's solvers hand to ``get_cost``, as pictures, aims and raw actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from .costs import Aim
from .scaling import ActionScaler

__all__ = ["aims_of", "pictures_of", "raw_candidates"]


def raw_candidates(candidates: Any, width: int, scaler: ActionScaler | None) -> np.ndarray:
    """``(B, S, horizon, block * width)`` in units of the scaler -> ``(B, S, horizon * block, width)`` in raw units.

    Raises:
        UserError: another shape, or a number that is not finite.
    """
    values = _array(candidates)
    if values.ndim != 4 or values.shape[3] % width or not values.size:
        raise UserError(f"candidates are (problems, samples, horizon, {width} or a multiple of it), got {values.shape}")
    if not np.isfinite(values).all():
        raise UserError("some candidates hold numbers that are not finite; the solver has diverged")
    values = values.reshape(*values.shape[:2], -1, width)
    return values if scaler is None else scaler.inverse_transform(values)


def pictures_of(info: Mapping[str, Any], name: str, problems: int) -> list[np.ndarray] | None:
    """The latest picture ``(H, W, 3)`` uint8 of every problem; None where there are none.

    Raises:
        UserError: they are no uint8 pictures.
    """
    if name not in info:
        return None
    values = _array(info[name])
    if values.dtype != np.uint8:
        raise UserError(
            f"'{name}' is of {values.dtype}; the world model takes uint8 pictures as the camera gives them, so leave "
            "out transforms of them"
        )
    if values.ndim not in (5, 6) or len(values) != problems or 3 not in (values.shape[-1], values.shape[-3]):
        raise UserError(
            f"'{name}' is ({problems} problems, samples, [history,] height, width, 3) or channels first; got "
            f"{values.shape}"
        )
    latest = values[:, 0] if values.ndim == 5 else values[:, 0, -1]
    return list(latest if latest.shape[-1] == 3 else latest.transpose(0, 2, 3, 1))


def aims_of(info: Mapping[str, Any], problems: int) -> list[Aim]:
    """What is wanted of every problem: ``goal`` pictures and ``instruction`` strings, where there are any."""
    goals: Sequence[np.ndarray | None] | None = pictures_of(info, "goal", problems)
    goals = [None] * problems if goals is None else goals
    words = info.get("instruction")
    if words is None:
        return [Aim("", goal) for goal in goals]
    rows = np.asarray(words, object).reshape(problems, -1)[:, 0]
    return [Aim(str(word), goal) for word, goal in zip(rows, goals, strict=True)]


def _array(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.detach().cpu().numpy()
