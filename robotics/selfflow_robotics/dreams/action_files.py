"""Actions from files, and whether a world model has seen their like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import WorldModelAbout

__all__ = ["outside", "read_actions"]


def read_actions(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """``(T, D)`` float32 in raw units from an ``.npy`` file, or from JSON: T lists, or an object with ``actions``.

    Raises:
        UserError: no such file, another shape, or a number that is not finite.
    """
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".json":
            data = json.loads(path.read_text(encoding="utf-8"))
            values = np.array(data["actions"] if isinstance(data, dict) else data, np.float32)
        else:
            raise UserError(f"actions are read from .npy or .json, and '{path.name}' is neither")
        actions = np.asarray(values, np.float32)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"no actions can be read from {path} ({error})") from error
    if actions.ndim != 2 or actions.shape[1] != len(names) or not len(actions):
        raise UserError(
            f"{path} holds numbers of shape {actions.shape}; actions are (T, {len(names)}): {', '.join(names)}"
        )
    if not np.isfinite(actions).all():
        step, column = np.argwhere(~np.isfinite(actions))[0]
        raise UserError(f"{path}: {names[column]} of action {step} is {actions[step, column]}, not a finite number")
    return actions


def outside(actions: np.ndarray, about: WorldModelAbout) -> list[str]:
    """A clause for every column of ``(T, D)`` that leaves the range that the model was trained on."""
    found = []
    for values, name, low, high in zip(actions.T, about.action_names, about.action_low, about.action_high, strict=True):
        beyond = np.maximum(low - values, values - high)
        # float32 rounds a bound up or down; a recorded bound is not outside itself.
        count = int((beyond > 1e-6 * max(1.0, abs(low), abs(high))).sum())
        if count:
            furthest = float(values[np.argmax(beyond)])
            found.append(
                f"{name} lies outside [{low:.4g}, {high:.4g}] in {count} of {len(actions)}, up to {furthest:.4g}"
            )
    return found
