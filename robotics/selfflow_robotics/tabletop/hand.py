"""The gripper: a palm and two fingers, as spheres that cannot enter anything.

The tool's frame has its origin between the fingers' pads, z pointing out of the hand (straight down at rest) and the
fingers moving along y. The arm behind the hand is only seen; it touches nothing.
"""

from __future__ import annotations

import math

import numpy as np

from . import measures as m

#: How the hand is held at rest: pointing down, fingers left and right.
REST = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
#: Rows of ``Hand.spheres`` that are fingers; the palm follows, then the held thing.
FINGERS = 2 * len(m.FINGER_HEIGHTS)


class Hand:
    """Where the tool is: ``place`` (3,) and ``turn`` (3, 3) tool -> base; ``gap`` between the pads."""

    def __init__(self, place: np.ndarray, turn: np.ndarray = REST, gap: float = m.GAP) -> None:
        self.place = np.array(place, dtype=np.float64)
        self.turn = np.array(turn, dtype=np.float64)
        self.gap = gap
        self.load = np.zeros((0, 4))  # the held thing's spheres in the tool's frame
        self._palm = [(0.0, side, m.PALM_HEIGHT, m.PALM_RADIUS) for side in m.PALM_SIDES]
        self._local: np.ndarray | None = None
        self._made_for: tuple[float, int] = (-1.0, -1)

    def spheres(self) -> np.ndarray:
        """``(n, 4)`` x, y, z in the base frame and radius."""
        if self._local is None or self._made_for != (self.gap, id(self.load)):
            side = self.gap / 2 + m.FINGER_RADIUS
            rows = [(0.0, sign * side, z, m.FINGER_RADIUS) for sign in (1, -1) for z in m.FINGER_HEIGHTS]
            local = np.array(rows + self._palm)
            self._local = np.concatenate([local, self.load]) if len(self.load) else local
            self._made_for = (self.gap, id(self.load))
        out = self._local.copy()
        out[:, :3] = self._local[:, :3] @ self.turn.T
        out[:, :3] += self.place
        return out

    def quaternion(self) -> tuple[float, float, float, float]:
        """w, x, y, z of ``turn``, the one of q and -q that stays near (0, 1, 0, 0), straight down (Shepperd 1978)."""
        (a, b, c), (d, e, f), (g, h, i) = self.turn.tolist()
        # Four times the squares of x, y, z; the hand never turns far from straight down, so x or another is large.
        squares = (1 + a - e - i, 1 - a + e - i, 1 - a - e + i)
        if squares[0] >= max(squares):
            w, x, y, z = h - f, squares[0], b + d, c + g
        elif squares[1] >= squares[2]:
            w, x, y, z = c - g, b + d, squares[1], f + h
        else:
            w, x, y, z = d - b, c + g, f + h, squares[2]
        size = math.copysign(math.hypot(w, x, y, z), x)
        return (w / size, x / size, y / size, z / size)

    def lean(self) -> tuple[float, float, float]:
        """The rotation vector, in the base frame, from pointing straight down (``REST``) to ``turn``."""
        w, x, y, z = self.quaternion()
        # That times the inverse of (0, 1, 0, 0), which is REST.
        sine = math.hypot(w, z, y)
        scale = 2 * math.atan2(sine, x) / sine if sine > 1e-12 else 2.0
        return (-w * scale, -z * scale, y * scale)

    def to_tool(self, place: np.ndarray | list[float] | tuple[float, ...]) -> np.ndarray:
        """A point of the base frame in the tool's."""
        return (np.asarray(place) - self.place) @ self.turn
