"""What a clip begins with: objects and how they move, and the room's furniture."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from .constants import WIDTH
from .text import PITCH

#: A star's inner corners lie at this share of its radius.
STAR_WAIST = 0.5
#: Height of a block; its size is its width.
BLOCK_HEIGHT = 13.0
#: Ranges of size in pixels: diameter, side, side, diameter from tip to tip, width.
SIZES: dict[str, tuple[float, float]] = {
    "ball": (14.0, 17.0),
    "cube": (13.5, 15.5),
    "triangle": (17.5, 19.5),
    "star": (18.5, 20.0),
    "block": (27.0, 27.0),
}


@cache
def _star() -> np.ndarray:
    """Ten corners of a star of diameter 1, the first a tip that points up, then clockwise."""
    turn = np.arange(10) * math.pi / 5
    radius = np.where(np.arange(10) % 2, STAR_WAIST, 1.0) / 2
    return np.stack([radius * np.sin(turn), -radius * np.cos(turn)], axis=1)


def outline(shape: str, size: float) -> np.ndarray:
    """Corners ``(n, 2)`` in pixels about the centre of mass, unrotated, in order; ``n = 0`` for a ball."""
    half = size / 2
    if shape == "ball":
        return np.empty((0, 2))
    if shape == "star":
        return _star() * size
    if shape == "triangle":
        corners = [(0.0, -size * math.sqrt(1 / 3)), (half, size * math.sqrt(1 / 12)), (-half, size * math.sqrt(1 / 12))]
        return np.array(corners)
    down = half if shape == "cube" else BLOCK_HEIGHT / 2
    return np.array([(-half, -down), (half, -down), (half, down), (-half, down)])


@dataclass(frozen=True)
class Thing:
    """One object at the time ``enters`` (seconds), before which it is outside the picture.

    ``size`` in pixels, ``place`` (x, y), ``angle``, ``velocity`` in pixels and ``spin`` in radians per second; ``word``
    is written on a block, or empty.
    """

    shape: str
    colour: str
    material: str
    size: float
    place: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    velocity: tuple[float, float] = (0.0, 0.0)
    spin: float = 0.0
    enters: float = 0.0
    word: str = ""

    @property
    def name(self) -> str:
        """ "red ball": no two objects of a clip share a colour."""
        return f"{self.colour} {self.shape}"

    def corners(self) -> np.ndarray:
        """Corners ``(n, 2)`` in pixels about the centre, unrotated; ``n = 0`` for a ball."""
        return outline(self.shape, self.size)

    def depth(self, angle: float = 0.0) -> float:
        """Pixels from the centre down to the lowest point when turned by ``angle``."""
        return float(self.depths(np.array(angle)))

    def depths(self, angles: np.ndarray) -> np.ndarray:
        """:meth:`depth` at each angle."""
        if self.shape == "ball":
            return np.full(angles.shape, self.size / 2)
        x, y = self.corners().T
        return (x * np.sin(angles)[..., None] + y * np.cos(angles)[..., None]).max(axis=-1)

    def reach(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far it reaches to the left and to the right of its centre (pixels, both positive) at each angle."""
        if self.shape == "ball":
            return np.full(angle.shape, self.size / 2), np.full(angle.shape, self.size / 2)
        x, y = self.corners().T
        across = x * np.cos(angle)[..., None] - y * np.sin(angle)[..., None]
        return -across.min(axis=-1), across.max(axis=-1)

    @property
    def half_width(self) -> float:
        """Half its width when it stands level."""
        return float(self.reach(np.zeros(()))[1])

    def mirrored(self) -> Thing:
        return replace(
            self,
            place=(WIDTH - self.place[0], self.place[1]),
            angle=-self.angle,
            velocity=(-self.velocity[0], self.velocity[1]),
            spin=-self.spin,
        )


@dataclass(frozen=True)
class Sign:
    """A board on the back wall; its first letter begins ``left`` pixels from the left."""

    word: str
    left: int

    #: Row of the letters' upper edge, the same on all signs.
    TOP = 4

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The board: left, top, right, bottom in pixels (right and bottom excluded)."""
        return self.left - 2, self.TOP - 2, self.left + PITCH * len(self.word) + 1, self.TOP + 11


@dataclass(frozen=True)
class Scene:
    """A room with its furniture and one to three objects.

    Attributes:
        kind: which of ``stories.STORIES`` it tells.
        things: the objects, in the order in which captions name them.
        walls: whether there is a side wall on the left and on the right.
        ramp: its upper surface from (x0, y0) down to (x1, y1), or None; one end lies outside the picture.
        shelf: its upper surface from (x0, y) to (x1, y), or None; one end lies outside the picture.
        screen: left, top, right, bottom of a screen in front of everything, whole pixels, or None.
        sign: a board with a word on the back wall, or None.
    """

    kind: str
    things: tuple[Thing, ...]
    walls: tuple[bool, bool] = (True, True)
    ramp: tuple[float, float, float, float] | None = None
    shelf: tuple[float, float, float, float] | None = None
    screen: tuple[int, int, int, int] | None = None
    sign: Sign | None = None

    def mirrored(self) -> Scene:
        """The same scene with left and right exchanged; writing stays readable, so scenes with any are not mirrored."""
        return replace(
            self,
            things=tuple(thing.mirrored() for thing in self.things),
            walls=(self.walls[1], self.walls[0]),
            ramp=_swap(self.ramp),
            shelf=_swap(self.shelf),
            screen=None
            if self.screen is None
            else (WIDTH - self.screen[2], self.screen[1], WIDTH - self.screen[0], self.screen[3]),
        )


def _swap(line: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
    return None if line is None else (WIDTH - line[0], line[1], WIDTH - line[2], line[3])
