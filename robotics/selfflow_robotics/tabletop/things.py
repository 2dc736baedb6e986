"""Objects on the table: where they are, how they lie, and the spheres that stand for a held one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .catalogue import Kind
from .footprints import Footprint


@dataclass(eq=False)
class Thing:
    """One object of the physics.

    A free one always rests or falls with one of its own axes upright (spheres: any), so that it is an upright solid:
    a footprint from ``place[2] - half_height`` to ``place[2] + half_height``. Only a held one leans.

    Attributes:
        kind: its row of the catalogue.
        place: ``[x, y, z]`` of its centre.
        turn: ``(3, 3)`` own axes -> base frame.
        fall: its downward speed, 0 when it rests.
        inside: index of the drawer it lies in, or -1.
        awake: whether it may have lost its support since it was last looked at.
    """

    kind: Kind
    place: list[float]
    turn: np.ndarray
    fall: float = 0.0
    inside: int = -1
    awake: bool = True
    footprint: Footprint = field(init=False)
    half_height: float = field(init=False)
    spheres: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.spheres = _spheres(self.kind)
        self.settle()

    @property
    def name(self) -> str:
        return self.kind.name

    @property
    def bottom(self) -> float:
        return self.place[2] - self.half_height

    @property
    def top(self) -> float:
        return self.place[2] + self.half_height

    @property
    def flat(self) -> bool:
        """Whether something can stand on it."""
        return self.kind.form == "box" or self.upright

    @property
    def upright(self) -> bool:
        return self.kind.form == "cylinder" and abs(self.turn[2, 2]) > 0.5

    @property
    def extent(self) -> np.ndarray:
        """Full sizes of the upright box around it, ``(3,)``."""
        size = np.array([self.footprint.reach(1.0, 0.0), self.footprint.reach(0.0, 1.0), self.half_height])
        return 2 * size

    def settle(self) -> None:
        """Bring the own axis that is nearest to upright exactly upright, and take the footprint from that."""
        form, size = self.kind.form, self.kind.size
        if form == "sphere":
            self.footprint, self.half_height = Footprint(size[0]), size[0]
            return
        heights = np.abs(self.turn[2])
        # A cylinder's x and y axes are as good as one another: it stands where z is within 45 degrees of upright.
        upright = int(np.argmax(heights)) if form == "box" else (2 if heights[2] > math.sqrt(0.5) else 0)
        if form == "cylinder" and upright == 2:
            self.footprint, self.half_height = Footprint(size[0]), size[1]
            side = 0
        else:
            side = 2 if form == "cylinder" else (upright + 1) % 3
            other = 3 - upright - side
            halves = (size[0], size[0], size[1]) if form == "cylinder" else size
            self.half_height = halves[upright]
            angle = math.atan2(self.turn[1, side], self.turn[0, side])
            self.footprint = Footprint(halves[side], halves[other], math.cos(angle), math.sin(angle))
        angle = math.atan2(self.turn[1, side], self.turn[0, side])
        columns = np.zeros((3, 3))
        columns[2, upright] = math.copysign(1.0, self.turn[2, upright])
        columns[:2, side] = math.cos(angle), math.sin(angle)
        other = 3 - upright - side
        sign = 1.0 if (upright, side, other) in ((0, 1, 2), (1, 2, 0), (2, 0, 1)) else -1.0
        columns[:, other] = sign * np.cross(columns[:, upright], columns[:, side])
        self.turn = columns


def _spheres(kind: Kind) -> np.ndarray:
    """``(n, 4)`` own x, y, z and radius of spheres inside the solid that touch its faces."""
    size = kind.size
    if kind.form == "sphere":
        return np.array([[0.0, 0.0, 0.0, size[0]]])
    halves = (size[0], size[0], size[1]) if kind.form == "cylinder" else size
    radius = min(halves)
    offsets = [np.unique(np.linspace(radius - half, half - radius, _count(half, radius))) for half in halves]
    grid = np.stack(np.meshgrid(*offsets, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.concatenate([grid, np.full((len(grid), 1), radius)], axis=1)


def _count(half: float, radius: float) -> int:
    return 1 if half - radius < 1e-9 else max(2, 1 + math.ceil((half - radius) / (1.2 * radius)))


def turned(yaw: float) -> np.ndarray:
    """Rotation by ``yaw`` about the vertical."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def lying(yaw: float) -> np.ndarray:
    """A cylinder on its side, its axis along ``yaw``."""
    return turned(yaw) @ np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
