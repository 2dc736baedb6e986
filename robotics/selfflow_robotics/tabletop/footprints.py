"""Upright solids seen from above: circles and turned rectangles, how deep they overlap and which way is out."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Footprint:
    """A circle of radius ``a`` (``b`` = 0), or a rectangle with half sizes ``a`` and ``b`` whose first side points
    along (``cos``, ``sin``)."""

    a: float
    b: float = 0.0
    cos: float = 1.0
    sin: float = 0.0

    @property
    def radius(self) -> float:
        """Of the circle around it."""
        return math.hypot(self.a, self.b)

    def reach(self, x: float, y: float) -> float:
        """How far it extends from its centre along the unit vector (x, y)."""
        if not self.b:
            return self.a
        return self.a * abs(x * self.cos + y * self.sin) + self.b * abs(y * self.cos - x * self.sin)

    def distance(self, x: float, y: float) -> tuple[float, float, float]:
        """Signed distance of the point (x, y), given from the centre, and the unit vector that leads outwards."""
        if not self.b:
            length = math.hypot(x, y)
            return (length - self.a, x / length, y / length) if length > 1e-9 else (-self.a, 1.0, 0.0)
        along, across = x * self.cos + y * self.sin, y * self.cos - x * self.sin
        over_a, over_b = abs(along) - self.a, abs(across) - self.b
        sign_a, sign_b = math.copysign(1.0, along), math.copysign(1.0, across)
        if over_a > 0 and over_b > 0:
            length = math.hypot(over_a, over_b)
            u, v = sign_a * over_a / length, sign_b * over_b / length
        elif over_a > over_b:
            length, u, v = over_a, sign_a, 0.0
        else:
            length, u, v = over_b, 0.0, sign_b
        return length, u * self.cos - v * self.sin, u * self.sin + v * self.cos

    def holds(self, x: float, y: float) -> bool:
        """Whether the point (x, y), given from the centre, lies inside."""
        return self.distance(x, y)[0] < 0


def overlap(first: Footprint, second: Footprint, x: float, y: float) -> tuple[float, float, float]:
    """Depth of the overlap of two footprints, ``second`` lying at (x, y) from ``first``, and the unit vector along
    which ``second`` gets out; depth <= 0 where they do not overlap."""
    if not second.b:
        distance, u, v = first.distance(x, y)
        return second.a - distance, u, v
    if not first.b:
        distance, u, v = second.distance(-x, -y)
        return first.a - distance, -u, -v
    best = (math.inf, 1.0, 0.0)
    for shape in (first, second):  # separating axes: two rectangles are apart along a side of one of them
        for u, v in ((shape.cos, shape.sin), (-shape.sin, shape.cos)):
            along = x * u + y * v
            depth = first.reach(u, v) + second.reach(u, v) - abs(along)
            if depth < best[0]:
                sign = math.copysign(1.0, along)
                best = (depth, u * sign, v * sign)
    return best
