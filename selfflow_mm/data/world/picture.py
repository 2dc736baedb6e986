"""The picture of a clip: a plain wall, a floor that shows its material, and soft-shaded objects with a shadow.

Objects are drawn from signed distances to their outline (negative inside), for all frames at once; a pixel's
coverage is its distance clipped to one pixel, which is anti-aliasing without supersampling.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from .constants import FLOOR_LINE, FLOOR_TOP, HEIGHT, WALL_LEFT, WALL_RIGHT, WIDTH
from .physics import Motion
from .scene import Body, Scene

#: sRGB of the six colours; the nearest two are more than 100 apart.
PAINT: dict[str, tuple[int, int, int]] = {
    "red": (222, 42, 42),
    "yellow": (250, 210, 40),
    "green": (48, 172, 74),
    "blue": (44, 96, 226),
    "pink": (245, 120, 200),
    "white": (248, 248, 246),
}
_WALL_ABOVE = np.array([118.0, 130.0, 150.0])
_WALL_BELOW = np.array([158.0, 168.0, 184.0])
#: Light from the upper left, in front: (right, down, towards the viewer).
_LIGHT = np.array([-0.48, -0.62, 0.62])
_BEVEL = 2.5
_OUTLINE = 1.1
#: Half the side of the square around an object's centre in which it is drawn, pixels.
_REACH = 16


def render_picture(scene: Scene, motion: Motion) -> np.ndarray:
    """uint8 ``(FRAMES, HEIGHT, WIDTH, 3)``."""
    frames = np.repeat(background(scene.material)[None], motion.states.shape[1], axis=0)
    for body, states in zip(scene.bodies, motion.states, strict=True):
        _cast_shadow(frames, body, states)
    for body, states in zip(scene.bodies, motion.states, strict=True):
        _paint(frames, body, states)
    return (np.clip(frames, 0, 255) + 0.5).astype(np.uint8)


@cache
def background(material: str) -> np.ndarray:
    """The empty room, float32 ``(HEIGHT, WIDTH, 3)`` in [0, 255]; the same in all clips of a material."""
    down = np.linspace(0, 1, FLOOR_TOP)[:, None, None]
    room = np.empty((HEIGHT, WIDTH, 3))
    room[:FLOOR_TOP] = _WALL_ABOVE * (1 - down) + _WALL_BELOW * down
    floor = _FLOORS[material]()
    room[FLOOR_TOP:] = floor
    # The floor's far edge, lit, and the walls' feet: thin strips of the same material at both sides.
    room[FLOOR_TOP] = floor[0] * 0.6 + 255 * 0.4
    strip = floor.mean((0, 1))
    room[:FLOOR_TOP, : math.ceil(WALL_LEFT)] = strip * 0.8
    room[:FLOOR_TOP, math.floor(WALL_RIGHT) :] = strip * 0.7
    return room.astype(np.float32)


def _floor_grid() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the floor's pixels, ``(HEIGHT - FLOOR_TOP, WIDTH)``, from 0."""
    row, column = np.mgrid[: HEIGHT - FLOOR_TOP, :WIDTH]
    return row, column


def _wood() -> np.ndarray:
    """Brown planks that run along the room, with dark gaps, few joints and a little grain."""
    row, column = _floor_grid()
    plank = np.searchsorted([4, 9], row, side="right")  # seen from above: the nearer, the broader
    floor = np.array([186.0, 124.0, 66.0]) * np.array([0.92, 1.04, 0.97])[plank][..., None]
    floor *= (1 + 0.06 * np.sin(row * 2.1 + plank + 0.8 * np.sin(column * 0.13 + 2 * plank)))[..., None]
    joint = column == np.array([18, 45, 9])[plank]
    floor[joint | (row == 4) | (row == 9)] *= 0.66
    return floor


def _metal() -> np.ndarray:
    """Cold light-grey plates with a sheen running across and rivets at the seams."""
    row, column = _floor_grid()
    sheen = np.exp(-((((column - row * 0.8) % 32 - 14) / 4.0) ** 2))
    floor = np.array([176.0, 190.0, 204.0]) * (0.84 + 0.01 * row)[..., None] + 62 * sheen[..., None]
    floor[:, ::32] *= 0.6
    floor[(row % 8 == 4) & ((column % 32 == 3) | (column % 32 == 29))] *= 0.55
    return floor


def _rubber() -> np.ndarray:
    """A dark mat with rows of round studs."""
    row, column = _floor_grid()
    shift = (row // 5) % 2 * 3
    distance = np.hypot(row % 5 - 2, (column + shift) % 6 - 2.5)
    floor = np.array([44.0, 46.0, 56.0]) * np.ones((*row.shape, 1))
    return floor + 34 * np.clip(2.2 - distance, 0, 1)[..., None]


_FLOORS = {"wood": _wood, "metal": _metal, "rubber": _rubber}


def _cast_shadow(frames: np.ndarray, body: Body, states: np.ndarray) -> None:
    """Darken the floor under the object, wider and fainter the higher it is."""
    height = np.clip(FLOOR_LINE - body.size / 2 - states[:, 1], 0, None)[:, None, None]
    spread = 0.55 * body.size * (1 + height / 60)
    x = (np.arange(WIDTH) + 0.5)[None, None] - states[:, 0, None, None]
    y = (np.arange(FLOOR_TOP, HEIGHT) + 0.5)[None, :, None] - (FLOOR_LINE + 0.5)
    shade = np.exp(-((x / spread) ** 2 + (y / (0.28 * spread)) ** 2) * 1.5)
    shade *= 0.55 / (1 + height / 16)
    frames[:, FLOOR_TOP:] *= (1 - shade)[..., None].astype(np.float32)


def _paint(frames: np.ndarray, body: Body, states: np.ndarray) -> None:
    """Blend the object over the frames, in place."""
    count = len(states)
    # Only a window around the object is drawn; np.floor keeps the object's centre within it.
    corner = np.floor(states[:, :2]).astype(int) - _REACH
    side = np.arange(2 * _REACH)
    x = (side[None, None] + corner[:, 0, None, None] + 0.5 - states[:, 0, None, None]).astype(np.float32)
    y = (side[None, :, None] + corner[:, 1, None, None] + 0.5 - states[:, 1, None, None]).astype(np.float32)
    distance, light = (_ball if body.shape == "ball" else _polygon)(body, x, y, states[:, 2])
    paint = np.asarray(PAINT[body.colour], dtype=np.float32)
    rim = np.clip((distance + _OUTLINE + 0.5) / 1.0, 0, 1) * 0.42
    shade = light * (1 - rim)
    # Below 1 the paint darkens, above 1 it whitens, so that highlights keep their hue.
    glow = np.clip(shade - 1, 0, 1)[..., None]
    colour = paint * np.minimum(shade, 1)[..., None] * (1 - glow) + 255 * glow
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    for k in range(count):
        left, top = corner[k]
        rows = slice(max(top, 0), min(top + 2 * _REACH, HEIGHT))
        columns = slice(max(left, 0), min(left + 2 * _REACH, WIDTH))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        window = frames[k, rows, columns]
        window += cover[k][inner] * (colour[k][inner] - window)


def _ball(body: Body, x: np.ndarray, y: np.ndarray, _angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance and light of a sphere: Lambert's law and a soft highlight."""
    radius = body.size / 2
    across = np.sqrt(x * x + y * y)
    z = np.sqrt(np.clip(1 - (across / radius) ** 2, 0, 1))
    lambert = np.clip((x * _LIGHT[0] + y * _LIGHT[1]) / radius + z * _LIGHT[2], 0, 1)
    highlight = np.exp(-(((x + 0.36 * radius) ** 2 + (y + 0.42 * radius) ** 2) / (0.22 * radius) ** 2))
    return across - radius, 0.66 + 0.42 * lambert + 0.75 * highlight


def _polygon(body: Body, x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance and light of a convex block with bevelled edges, each lit by the way it faces.

    The distance is the largest of those to the edges' lines: exact inside, and near enough within a pixel outside.
    """
    corners = body.corners()
    distance = np.full(np.broadcast_shapes(x.shape, y.shape), -np.inf, dtype=np.float32)
    facing = np.zeros_like(distance)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = b - a
        normal = np.array([along[1], -along[0]]) / np.hypot(*along)
        offset = float(normal @ a)
        cos, sin = np.cos(angle), np.sin(angle)
        nx = (normal[0] * cos - normal[1] * sin).astype(np.float32)[:, None, None]
        ny = (normal[0] * sin + normal[1] * cos).astype(np.float32)[:, None, None]
        edge = nx * x + ny * y - np.float32(offset)
        nearer = edge > distance
        facing = np.where(nearer, nx * _LIGHT[0] + ny * _LIGHT[1], facing)
        distance = np.maximum(distance, edge)
    bevel = np.clip((distance + _BEVEL + 0.5), 0, 1)
    return distance, 0.97 + bevel * 0.34 * facing - 0.012 * y
