"""What a clip begins with: its objects, how they are thrown, and the room's material, drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .constants import FIRST_CONTACT, FLOOR_LINE, GRAVITY, IMPACT_SPEED, WIDTH
from .prompts import COLOURS, MATERIALS, SHAPES

#: Corners of a shape of size 1, about its centre of mass; a ball has none and its size is its diameter.
CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "ball": (),
    "cube": ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)),
    "triangle": ((0.0, -math.sqrt(1 / 3)), (0.5, math.sqrt(1 / 12)), (-0.5, math.sqrt(1 / 12))),
}
#: Ranges of size in pixels: diameter, side, side.
SIZES: dict[str, tuple[float, float]] = {"ball": (17.0, 20.0), "cube": (15.0, 17.0), "triangle": (20.0, 22.0)}

#: No flight begins nearer to the floor than this (pixels of free space), or its start would be a contact.
_CLEARANCE = 2.0
#: Highest centre of a flight at its start and at its apex (pixels below the picture's upper edge).
_HIGHEST_START = 8.0
_HIGHEST_APEX = 0.0
#: At the first contact an object is at least so far from a wall (pixels from the picture's edge to its centre).
_WALL_DISTANCE = 20.0
#: Largest sideways speed, pixels per second.
_ACROSS = 14.0
#: Fastest turning in the air, radians per second.
_SPIN = 0.7


@dataclass(frozen=True)
class Body:
    """One object at time 0: ``size`` in pixels, ``place`` (x, y), ``angle``, ``velocity`` in pixels and ``spin`` in
    radians per second."""

    shape: str
    colour: str
    size: float
    place: tuple[float, float]
    angle: float
    velocity: tuple[float, float]
    spin: float

    def corners(self) -> np.ndarray:
        """Corners ``(n, 2)`` in pixels about the centre, unrotated; ``n = 0`` for a ball."""
        return np.asarray(CORNERS[self.shape], dtype=np.float64).reshape(-1, 2) * self.size

    def depth(self, angle: float) -> float:
        """Pixels from the centre down to the lowest point when turned by ``angle``."""
        if self.shape == "ball":
            return self.size / 2
        x, y = self.corners().T
        return float((x * math.sin(angle) + y * math.cos(angle)).max())


@dataclass(frozen=True)
class Scene:
    """A room of one material and the objects thrown into it (one in this version, up to three later)."""

    material: str
    bodies: tuple[Body, ...]


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene whose first contact's time is uniform in ``FIRST_CONTACT``.

    The flight is drawn from its end: contact time T and impact speed v, then back along the parabola, so that
    ``v0 = v - g T`` and ``y0 = y_contact - v T + g T^2 / 2``.
    """
    material = MATERIALS[rng.integers(len(MATERIALS))]
    shape = SHAPES[rng.integers(len(SHAPES))]
    colour = COLOURS[rng.integers(len(COLOURS))]
    size = float(rng.uniform(*SIZES[shape]))
    time = float(rng.uniform(*FIRST_CONTACT))

    # Objects turn gently in the air and land level: landing on a corner would send them tumbling.
    spin = 0.0 if shape == "ball" else float(rng.uniform(-_SPIN, _SPIN))
    level = Body(shape, colour, size, (0.0, 0.0), 0.0, (0.0, 0.0), spin)
    contact_y = FLOOR_LINE - level.depth(0.0)

    # The flight must start clear of the floor (turned, an object reaches deeper) and inside the picture, and its apex
    # must stay in sight.
    clearance = _CLEARANCE + max(0.0, level.depth(-spin * time) - level.depth(0.0))
    fallen = GRAVITY * time / 2
    slowest = max(IMPACT_SPEED[0], fallen + clearance / time)
    fastest = min(
        IMPACT_SPEED[1],
        fallen + (contact_y - _HIGHEST_START) / time,
        math.sqrt(2 * GRAVITY * (contact_y - _HIGHEST_APEX)),
    )
    speed = float(rng.uniform(slowest, max(slowest, fastest)))
    x = float(rng.uniform(_WALL_DISTANCE, WIDTH - _WALL_DISTANCE))
    # Sideways speed that neither starts in a wall nor runs into one before the first contact.
    margin = 12.0
    leftmost, rightmost = (x - (WIDTH - margin)) / time, (x - margin) / time
    across = float(rng.uniform(max(-_ACROSS, leftmost), min(_ACROSS, rightmost)))

    place = (x - across * time, contact_y - speed * time + GRAVITY * time**2 / 2)
    velocity = (across, speed - GRAVITY * time)
    return Scene(material, (Body(shape, colour, size, place, -spin * time, velocity, spin),))
