"""Actions to imagine: from a file, as recorded, or none; and whether a world model has seen their like."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import WorldModelAbout
from ..robot_episode import RobotEpisode

__all__ = ["outside", "read_actions", "recorded_actions", "same_rate", "still_actions"]


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
            values = np.array(data["actions"] if isinstance(data, dict) else data, np.float64)
        else:
            raise UserError(f"actions are read from .npy or .json, and '{path.name}' is neither")
        with np.errstate(over="ignore"):  # what float32 cannot hold is told below
            actions = np.asarray(values, np.float32)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"no actions can be read from {path} ({error})") from error
    if actions.ndim != 2 or actions.shape[1] != len(names) or not len(actions):
        raise UserError(f"{path} holds shape {actions.shape}; actions are (T, {len(names)}): {', '.join(names)}")
    if not np.isfinite(actions).all():
        step, column = np.argwhere(~np.isfinite(actions))[0]
        raise UserError(f"{path}: {names[column]} of action {step} is {actions[step, column]}, not a finite number")
    return actions


def recorded_actions(episode: RobotEpisode, step: int, about: WorldModelAbout) -> np.ndarray:
    """``(T, D)`` float32: the episode's actions from ``step`` on, without the last, whose outcome is not recorded.

    Raises:
        UserError: none is left, or they are not the world model's: other columns, or another rate.
    """
    if episode.action_names != about.action_names:
        raise UserError(
            f"the episode's actions are {', '.join(episode.action_names)}, the model's {', '.join(about.action_names)}"
        )
    same_rate(episode, about)
    actions = np.asarray(episode.actions[step:-1], np.float32)
    if not len(actions):
        raise UserError(f"step {step} is the episode's last, and what follows it is not recorded")
    return actions


def same_rate(episode: RobotEpisode, about: WorldModelAbout) -> None:
    """Raises UserError where a step of the episode takes another time than one of the world model."""
    if episode.control_rate != about.control_rate:
        raise UserError(
            f"what was recorded has {episode.control_rate:g} actions per second, the model {about.control_rate:g}, so "
            "the same numbers are another motion to it"
        )


def still_actions(about: WorldModelAbout, length: int, like: np.ndarray | None = None) -> np.ndarray:
    """``(length, D)`` float32 that do not move; the gripper is that of the action ``like (D,)``, or open."""
    actions = np.zeros((length, len(about.action_names)), np.float32)
    if "gripper" in about.action_names:
        column = about.action_names.index("gripper")
        actions[:, column] = 1 if like is None else like[column]
    return actions


def outside(actions: np.ndarray, about: WorldModelAbout) -> list[str]:
    """A clause for every column of ``(T, D)`` that leaves the range that the model was trained on, where it tells."""
    found: list[str] = []
    if not about.action_low:
        return found
    for values, name, low, high in zip(actions.T, about.action_names, about.action_low, about.action_high, strict=True):
        beyond = np.maximum(low - values, values - high)
        # float32 rounds a bound up or down; a recorded bound is not outside itself.
        count = int((beyond > 1e-6 * max(1.0, abs(low), abs(high))).sum())
        if count:
            furthest = float(values[np.argmax(beyond)])
            found.append(f"{name} leaves [{low:.4g}, {high:.4g}] in {count} of {len(actions)}, up to {furthest:.4g}")
    return found
