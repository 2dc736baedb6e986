"""The room without its objects: back wall, floor, side walls, ramp, shelf, sign and screen."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from .constants import FLOOR_LINE, FLOOR_TOP, HEIGHT, PLANK, WALL_LEFT, WALL_RIGHT, WIDTH
from .scene import Scene, Sign
from .text import LETTER_HEIGHT, written

#: Ink and board of a sign.
INK, BOARD = (22, 22, 30), (247, 242, 226)
_BACK_ABOVE, _BACK_BELOW = np.array([112.0, 118.0, 132.0]), np.array([142.0, 147.0, 158.0])
_FLOOR_FAR, _FLOOR_NEAR = np.array([172.0, 166.0, 158.0]), np.array([142.0, 135.0, 128.0])
_WOODWORK, _SHADOW = np.array([96.0, 78.0, 66.0]), np.array([58.0, 52.0, 54.0])
_SIDE = np.array([84.0, 88.0, 102.0])
_CLOTH = np.array([64.0, 60.0, 84.0])


def empty_room(scene: Scene) -> tuple[np.ndarray, tuple[slice, slice, np.ndarray] | None]:
    """The picture without objects, float32 ``(HEIGHT, WIDTH, 3)`` in [0, 255], and the screen that comes in front of
    them: its rows, its columns and its pixels, or None."""
    room = _walls(scene.walls).copy()
    if scene.sign is not None:
        _hang(room, scene.sign)
    for line in (scene.ramp, scene.shelf):
        if line is not None:
            _build(room, line)
    if scene.screen is None:
        return room, None
    left, top, right, bottom = scene.screen
    return room, (slice(top, bottom), slice(left, right), _screen(bottom - top, right - left))


@cache
def _walls(sides: tuple[bool, bool]) -> np.ndarray:
    down = np.linspace(0, 1, FLOOR_TOP)[:, None, None]
    room = np.empty((HEIGHT, WIDTH, 3), dtype=np.float32)
    room[:FLOOR_TOP] = _BACK_ABOVE * (1 - down) + _BACK_BELOW * down
    near = np.linspace(0, 1, HEIGHT - FLOOR_TOP)[:, None, None]
    room[FLOOR_TOP:] = _FLOOR_FAR * (1 - near) + _FLOOR_NEAR * near
    room[FLOOR_TOP] = _FLOOR_FAR * 1.18  # the floor's far edge, lit
    room[FLOOR_TOP - 1] = _BACK_BELOW * 0.8
    foot = int(FLOOR_LINE)
    thick = int(WALL_LEFT)
    if sides[0]:
        room[:foot, :thick] = _SIDE
        room[:foot, thick - 1] = _SIDE * 1.35
    if sides[1]:
        room[:foot, int(WALL_RIGHT) :] = _SIDE * 0.85
        room[:foot, int(WALL_RIGHT)] = _SIDE * 1.15
    return room


def _hang(room: np.ndarray, sign: Sign) -> None:
    left, top, right, bottom = sign.box
    room[top + 1 : bottom + 1, left + 1 : right + 1] *= 0.8  # its shadow on the wall
    room[top:bottom, left:right] = _SHADOW
    room[top + 1 : bottom - 1, left + 1 : right - 1] = BOARD
    ink = written(sign.word)
    room[sign.TOP : sign.TOP + LETTER_HEIGHT, sign.left : sign.left + ink.shape[1]][ink] = INK


def _build(room: np.ndarray, line: tuple[float, float, float, float]) -> None:
    """A plank below its upper surface, with a leg near its end."""
    x0, y0, x1, y1 = line
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    length = math.hypot(x1 - x0, y1 - y0)
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length
    side = math.copysign(1.0, x1 - x0)
    below = side * (-(x - x0) * (y1 - y0) + (y - y0) * (x1 - x0)) / length
    leg = x1 - side * 7.0
    leg_top = y0 + (y1 - y0) * (leg - x0) / (x1 - x0) + 2.0
    _cover(room, np.maximum(np.abs(x - leg) - 1.5, np.maximum(leg_top - y, y - FLOOR_LINE)), _WOODWORK * 0.75)
    plank = np.maximum(np.abs(below - PLANK / 2) - PLANK / 2, along - length)
    _cover(room, plank, _WOODWORK)
    _cover(room, np.maximum(np.abs(below - 0.5) - 0.5, along - length), _WOODWORK * 1.6)


def _cover(room: np.ndarray, distance: np.ndarray, colour: np.ndarray) -> None:
    room += np.clip(0.5 - distance, 0, 1)[..., None].astype(np.float32) * (colour.astype(np.float32) - room)


@cache
def _screen(height: int, width: int) -> np.ndarray:
    """A folding screen of dark cloth in a frame."""
    fold = 1 + 0.16 * np.cos(2 * np.pi * (np.arange(width) + 0.5) / 6.0)
    pixels = np.broadcast_to(_CLOTH * fold[:, None], (height, width, 3)).copy()
    pixels[0], pixels[-2:] = _CLOTH * 1.7, _CLOTH * 0.5
    pixels[:, 0], pixels[:, -1] = _CLOTH * 1.4, _CLOTH * 0.6
    return pixels.astype(np.float32)
