"""One episode in the house's convention, whatever robot and data set it came from.

Actions are ``(T, 7)`` float32: translation of the gripper x, y, z in metres and rotation as roll, pitch, yaw in
radians, both per step and in the robot's base frame, then the gripper as an **absolute** target, 1 open and 0 closed.
That is what RT-1 and Bridge have after the transforms that everybody applies; simulators' conventions are reached from
it by :mod:`selfflow_robotics.actions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .episode import Pictures

__all__ = ["ACTION_NAMES", "GRIPPER", "RobotEpisode"]

ACTION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
GRIPPER = 6


@dataclass(frozen=True)
class RobotEpisode:
    """One episode with its meaning known.

    Attributes:
        id: of the episode in its data set.
        robot: ``"google_robot"``, ``"widowx"``, or what a layout calls it.
        control_rate: steps per second.
        actions: ``(T, 7)`` float32 (other widths where a layout says ``convention: raw``).
        action_names: one per column of ``actions``.
        states: ``(T, S)`` float32 proprioception; S may be 0.
        state_names: one per column of ``states``.
        images: camera -> T pictures.
        instruction: what the robot was told, "" where nothing.
        terminate: ``(T,)`` bool; True where the robot says that it is done.
        metadata: of the episode.
        sound: ``(T, channels, samples per step)`` float32 in [-1, 1] where the data set has any, else None.
        sound_rate: samples per second of ``sound``.
    """

    id: str
    robot: str
    control_rate: float
    actions: np.ndarray
    states: np.ndarray
    images: Mapping[str, Pictures]
    instruction: str
    terminate: np.ndarray
    action_names: tuple[str, ...] = ACTION_NAMES
    state_names: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sound: np.ndarray | None = None
    sound_rate: int = 0

    def __len__(self) -> int:
        return len(self.actions)
