"""From the house's actions to SIMPLER's commands, for data (whole episodes, and back) and for control (step by step).

A command is ``(7,)``: x, y, z in metres, axis times angle in radians, and the gripper as the robot takes it: the Google
robot +1 close and -1 open as changes of a target, the WidowX +1 open and -1 closed as the target itself.

RT-1's own checkpoints, as SIMPLER runs them, take ``rotation_delta`` for an axis-angle without conversion; Octo,
OpenVLA and open-pi-zero take it for roll, pitch, yaw, and so do we. For steps of 0.1 rad the two differ by 0.005 rad.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from selfflow_mm.errors import UserError

from ..robot_episode import GRIPPER
from .gripper_control import GoogleRobotGripper, GripperControl, WidowXGripper
from .rotations import rpy_to_axis_angle
from .transform import AxisAngle, Compose, GripperColumn

__all__ = ["ROBOTS", "SimplerControl", "to_simpler"]

# The robot's name -> the convention of its gripper in data, and who makes its commands in control.
ROBOTS: dict[str, tuple[str, Callable[[], GripperControl]]] = {
    "google_robot": ("relative_closing", GoogleRobotGripper),
    "widowx": ("signed_opening", WidowXGripper),
}


def to_simpler(robot: str) -> Compose:
    """House actions ``(T, 7)`` of a whole episode <-> SIMPLER's commands, as a transform.

    Back again, the WidowX's are what they were. The Google robot's gripper comes back for openings of 0 and 1 (one
    event per change; to *act*, use :class:`SimplerControl`, which repeats them).

    Raises:
        UserError: an unknown robot.
    """
    return Compose((AxisAngle(), GripperColumn(_known(robot)[0], GRIPPER)))


class SimplerControl:
    """A policy's actions, one at a time, into commands that SIMPLER's ``env.step`` takes.

    Args:
        robot: ``google_robot`` or ``widowx``.
        gripper: another way to make the gripper's command than the robot's usual one.

    Raises:
        UserError: an unknown robot.
    """

    def __init__(self, robot: str, gripper: GripperControl | None = None) -> None:
        usual = _known(robot)[1]
        self.gripper = usual() if gripper is None else gripper

    def reset(self) -> None:
        """At the start of every episode."""
        self.gripper.reset()

    def step(self, action: ArrayLike) -> np.ndarray:
        """House action ``(7,)`` -> command ``(7,)`` float64."""
        house = np.asarray(action, dtype=np.float64)
        if house.shape != (7,):
            raise UserError(f"a SIMPLER command is made of one action of 7 numbers, not of shape {house.shape}")
        return np.concatenate([house[:3], rpy_to_axis_angle(house[3:6]), [self.gripper.step(float(house[GRIPPER]))]])


def _known(robot: str) -> tuple[str, Callable[[], GripperControl]]:
    if robot not in ROBOTS:
        raise UserError(f"SIMPLER's robots are {' and '.join(ROBOTS)}, not '{robot}'")
    return ROBOTS[robot]
