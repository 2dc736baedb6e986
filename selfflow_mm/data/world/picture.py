"""The picture of a clip: a plain room with its furniture, and soft-shaded objects that show what they are made of.

Objects are drawn from signed distances to their outline (negative inside), for all frames at once; a pixel's
coverage is its distance clipped to one pixel, which is anti-aliasing without supersampling.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from .constants import FLOOR_LINE, FLOOR_TOP, HEIGHT, WIDTH
from .furniture import empty_room
from .physics import Motion
from .scene import STAR_WAIST, Scene, Thing
from .surfaces import finish, ink
from .text import written

#: Half the side of the square around an object's centre in which it is drawn, pixels.
_REACH = 17


def render_picture(scene: Scene, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
    """The frames, uint8 ``(FRAMES, HEIGHT, WIDTH, 3)``, and how much of each object they show, float64
    ``(objects, FRAMES)``: the share of its area that is inside the picture and not behind the screen."""
    room, screen = empty_room(scene)
    states = motion.states
    frames = np.repeat(room[None], states.shape[1], axis=0)
    for thing, path in zip(scene.things, states, strict=True):
        _cast_shadow(frames, thing, path)
    seen = [_paint(frames, thing, path, screen) for thing, path in zip(scene.things, states, strict=True)]
    if screen is not None:
        rows, columns, pixels = screen
        frames[:, rows, columns] = pixels
    return (np.clip(frames, 0, 255) + 0.5).astype(np.uint8), np.stack(seen)


def _cast_shadow(frames: np.ndarray, thing: Thing, path: np.ndarray) -> None:
    """Darken the floor under the object, wider and fainter the higher it is."""
    height = np.clip(FLOOR_LINE - thing.depth() - path[:, 1], 0, None)[:, None, None]
    spread = (thing.half_width + 0.5) * (1 + height / 60)
    x = (np.arange(WIDTH) + 0.5)[None, None] - path[:, 0, None, None]
    y = (np.arange(FLOOR_TOP, HEIGHT) + 0.5)[None, :, None] - (FLOOR_LINE + 0.5)
    shade = np.exp(-1.5 * (x / spread) ** 2) * np.exp(-1.5 * (y / 4.5) ** 2) * (0.5 / (1 + height / 16))
    frames[:, FLOOR_TOP:] *= (1 - shade)[..., None].astype(np.float32)


def _paint(
    frames: np.ndarray, thing: Thing, path: np.ndarray, screen: tuple[slice, slice, np.ndarray] | None
) -> np.ndarray:
    """Draw one object into all frames; returns the share of it that each shows."""
    seen = np.zeros(len(path))
    inside = np.abs(path[:, :2] - [WIDTH / 2, HEIGHT / 2]) < [WIDTH / 2 + _REACH, HEIGHT / 2 + _REACH]
    drawn = np.flatnonzero(inside.all(axis=1))
    if not len(drawn):
        return seen
    # What stands still is drawn once.
    poses, which = np.unique(np.round(path[drawn], 3), axis=0, return_inverse=True)
    corner, cover, colour = _stamps(thing, poses)
    hidden = np.zeros((HEIGHT, WIDTH), dtype=bool)
    if screen is not None:
        hidden[screen[0], screen[1]] = True
    for frame, pose in zip(drawn, which.reshape(-1), strict=True):
        left, top = corner[pose]
        rows = slice(max(top, 0), min(top + 2 * _REACH, HEIGHT))
        columns = slice(max(left, 0), min(left + 2 * _REACH, WIDTH))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        window = frames[frame, rows, columns]
        window += cover[pose][inner][..., None] * (colour[pose][inner] - window)
        seen[frame] = (cover[pose][inner] * ~hidden[rows, columns]).sum() / cover[pose].sum()
    return seen


def _stamps(thing: Thing, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The object in each pose ``(n, 3)``: the upper left corner of its square in the picture, whole pixels ``(n, 2)``;
    its coverage ``(n, side, side)`` in [0, 1]; its colours ``(n, side, side, 3)``."""
    corner = np.floor(poses[:, :2]).astype(int) - _REACH
    offset = (poses[:, :2] - corner).astype(np.float32)
    grid = np.arange(2 * _REACH, dtype=np.float32) + 0.5
    x = np.broadcast_to(grid[None, None] - offset[:, 0, None, None], (len(poses), 2 * _REACH, 2 * _REACH))
    y = np.broadcast_to(grid[None, :, None] - offset[:, 1, None, None], x.shape)
    cos, sin = (f(poses[:, 2]).astype(np.float32)[:, None, None] for f in (np.cos, np.sin))
    u, v = cos * x + sin * y, cos * y - sin * x  # turned with the object
    if thing.shape == "ball":
        distance, facing = _ball(thing, x, y)
    else:
        distance, facing = (_star if thing.shape == "star" else _polygon)(thing, u, v, cos, sin)
    colour = finish(thing, distance, facing, x, y, u, v)
    if thing.word:
        written_on = _ink(thing.word, u, v)[..., None]
        colour = colour * (1 - written_on) + ink(thing.colour) * written_on
    return corner, np.clip(0.5 - distance, 0, 1), colour


def _ball(thing: Thing, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to a disc's rim, and how much a sphere's surface faces the light (-1 to 1)."""
    radius = thing.size / 2
    across = np.sqrt(x * x + y * y)
    z = np.sqrt(np.clip(1 - (across / radius) ** 2, 0, 1))
    return across - radius, 1.5 * ((-0.45 * x - 0.6 * y) / radius + 0.66 * z) - 0.7


def _polygon(
    thing: Thing, u: np.ndarray, v: np.ndarray, cos: np.ndarray, sin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to a convex outline, and how much its bevelled edges face the light (0 on its face).

    The distance is the largest of those to the edges' lines: exact inside, and near enough within a pixel outside.
    """
    corners = thing.corners()
    distance = np.full(u.shape, -np.inf, dtype=np.float32)
    lit = np.zeros_like(distance)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        normal = np.array([b[1] - a[1], a[0] - b[0]]) / np.hypot(*(b - a))
        edge = np.float32(normal[0]) * u + np.float32(normal[1]) * v - np.float32(normal @ a)
        lit = np.where(edge > distance, _lit(normal[0], normal[1], cos, sin), lit)
        distance = np.maximum(distance, edge)
    return distance, lit * np.clip((distance + 3.0) / 1.5, 0, 1)


def _star(
    thing: Thing, u: np.ndarray, v: np.ndarray, cos: np.ndarray, sin: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same for a star: all ten edges are folded onto one, and each half of an arm is lit as a facet."""
    tip, waist = thing.size / 2, STAR_WAIST * thing.size / 2
    turn = np.arctan2(u, -v)  # clockwise from the tip that points up
    arm = np.round(turn / (2 * math.pi / 5))
    aside = turn - arm * (2 * math.pi / 5)
    radius = np.hypot(u, v)
    along, across = radius * np.cos(aside), radius * np.abs(np.sin(aside))
    edge = np.array([waist * math.cos(math.pi / 5) - tip, waist * math.sin(math.pi / 5)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    distance = (along - tip) * np.float32(normal[0]) + across * np.float32(normal[1])
    direction = arm * (2 * math.pi / 5) + np.sign(aside) * math.atan2(normal[1], normal[0])
    lit = _lit(np.sin(direction), -np.cos(direction), cos, sin)
    return distance.astype(np.float32), 0.7 * lit.astype(np.float32)


def _lit(nx: np.ndarray | float, ny: np.ndarray | float, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """How much an edge with this normal, turned with the object, faces the light from the upper left."""
    return -0.6 * (nx * cos - ny * sin) - 0.8 * (nx * sin + ny * cos)


def _ink(word: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """How much of each pixel a word written in the middle of a face covers, in [0, 1] (bilinear)."""
    letters = _padded(word)
    height, width = letters.shape
    column = np.clip(u + (width - 1) / 2, 0, width - 1.001)
    row = np.clip(v + (height - 1) / 2, 0, height - 1.001)
    j, i = np.floor(column).astype(int), np.floor(row).astype(int)
    p, q = column - j, row - i
    upper = letters[i, j] * (1 - p) + letters[i, j + 1] * p
    lower = letters[i + 1, j] * (1 - p) + letters[i + 1, j + 1] * p
    return upper * (1 - q) + lower * q


@cache
def _padded(word: str) -> np.ndarray:
    return np.pad(written(word).astype(np.float32), 2)
