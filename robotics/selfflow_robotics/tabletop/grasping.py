"""When closing fingers get hold of a solid between them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..actions.rotations import axis_angle_to_matrix
from .measures import PAD

#: Fingers turn a box or a cylinder that is askew by less than this (radians) straight, and jam on others.
ASKEW = 0.6
#: A round side holds where the pads' normals are within the cone of friction: offset / radius below this.
OFF_CENTRE = 0.45


@dataclass(frozen=True)
class Grip:
    """How far the pads are from the middle when they touch, and the solid's axes in the tool's frame when held.

    ``holds`` is False for a solid that stops the fingers and slips out of them.
    """

    half: float
    turn: np.ndarray
    holds: bool = True


def find_grip(form: str, size: tuple[float, ...], place: np.ndarray, turn: np.ndarray) -> Grip | None:
    """What closing fingers meet; None when they miss.

    Args:
        place: ``(3,)`` the solid's centre in the tool's frame (y is the direction in which the fingers move, z points
            out of the hand, the origin lies between the pads).
        turn: ``(3, 3)`` its axes in the tool's frame.
    """
    # What remains of the offset when the pads' own size is taken off: 0 where the centre lies between the pads.
    x = math.copysign(max(abs(place[0]) - PAD[0], 0.0), place[0])
    z = math.copysign(max(abs(place[2]) - PAD[1], 0.0), place[2])
    if form == "sphere":
        return Grip(size[0], turn, math.hypot(x, z) <= OFF_CENTRE * size[0]) if math.hypot(x, z) < size[0] else None
    if form == "cylinder":
        axis = turn[:, 2]
        lean = abs(axis[1])
        along = abs(x * axis[0] + z * axis[2])
        across = abs(x * axis[2] - z * axis[0]) / max(math.hypot(axis[0], axis[2]), 1e-9)
        if lean <= math.sin(ASKEW):  # pads on the round side
            if along > size[1] or across > size[0]:
                return None
            straight = np.array([axis[0], 0.0, axis[2]]) / math.hypot(axis[0], axis[2])
            return Grip(size[0], _turn_onto(axis, straight) @ turn, across <= OFF_CENTRE * size[0])
        if lean >= math.cos(ASKEW):  # pads on both ends
            if math.hypot(x, z) > size[0]:
                return None
            return Grip(size[1], _turn_onto(axis, np.array([0.0, math.copysign(1.0, axis[1]), 0.0])) @ turn)
        if along > size[1] or across > size[0]:
            return None
        return Grip(lean * size[1] + math.sqrt(1 - lean * lean) * size[0], turn, holds=False)
    side = int(np.argmax(np.abs(turn[1])))
    others = [axis for axis in range(3) if axis != side]
    if any(abs(x * turn[0, axis] + z * turn[2, axis]) > size[axis] for axis in others):
        return None
    if abs(turn[1, side]) < math.cos(ASKEW):
        return Grip(sum(abs(turn[1, axis]) * size[axis] for axis in range(3)), turn, holds=False)
    straight = np.array([0.0, math.copysign(1.0, turn[1, side]), 0.0])
    return Grip(size[side], _turn_onto(turn[:, side], straight) @ turn)


def _turn_onto(axis: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotation that brings the unit vector ``axis`` onto ``target``."""
    normal = np.cross(axis, target)
    sine = float(np.linalg.norm(normal))
    if sine < 1e-12:
        return np.eye(3)
    return axis_angle_to_matrix(normal * (math.atan2(sine, float(axis @ target)) / sine))
