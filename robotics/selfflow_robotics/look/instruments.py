"""One action as instruments: an arrow in a compass, bars about zero, and a gripper's two fingers.

The compass looks down on the robot's base: x (ahead) is up, y (left) is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from ..robot_episode import ACTION_NAMES, RobotEpisode
from .lettering import GREEN, ORANGE, PAPER, RED, SKY, SOFT, TRACK, Colour, figures, font

__all__ = ["ActionScale", "draw_instruments", "instruments_size"]

TRANSLATION, ROTATION = ACTION_NAMES[:3], ACTION_NAMES[3:6]
#: Colours of translation, rotation and other numbers, gripper, and of what is longer than the scale.
MOVE, TURN, GRIP, BEYOND = ORANGE, SKY, GREEN, RED
_FINE = 4  # drawn so many times larger and averaged, for smooth edges
_HEIGHT, _RADIUS, _TOP, _BAR, _BARS_APART, _GRIPPER = 80, 27, 4, 9, 17, 54


@dataclass(frozen=True)
class ActionScale:
    """What a full arrow or bar means.

    Attributes:
        limits: one per action column, in the actions' units; 0 where a column never moves. x, y, z share one, and so do
            roll, pitch, yaw, so that lengths compare.
        source: whose 99th percentile it is, in words.
    """

    limits: tuple[float, ...]
    source: str

    @classmethod
    def of(cls, actions: np.ndarray, names: Sequence[str], source: str) -> ActionScale:
        """From ``(N, D)`` actions: the 99th percentile of sizes over steps; numbers that are not finite do not count.

        Of a group (translation, rotation) the largest size in each step counts, with the arrow's length for x and y.
        """
        sizes = np.abs(np.asarray(actions, dtype=np.float64))
        sizes[~np.isfinite(sizes)] = 0
        limits = [float(np.quantile(sizes[:, i], 0.99)) if len(sizes) else 0.0 for i in range(len(names))]
        for group in (TRANSLATION, ROTATION):
            places = [i for i, name in enumerate(names) if name in group]
            if not places or not len(sizes):
                continue
            members = [sizes[:, i] for i in places]
            if {"x", "y"} <= {names[i] for i in places}:
                members.append(np.hypot(sizes[:, names.index("x")], sizes[:, names.index("y")]))
            shared = float(np.quantile(np.max(members, axis=0), 0.99))
            for i in places:
                limits[i] = shared
        return cls(tuple(limits), source)

    @classmethod
    def fitting(cls, episode: RobotEpisode, shared: ActionScale | None) -> ActionScale:
        """``shared`` where it has the episode's columns, else the episode's own."""
        if shared is not None and len(shared.limits) == len(episode.action_names):
            return shared
        return cls.of(episode.actions, episode.action_names, "this episode")

    def share(self, action: np.ndarray, column: int) -> float:
        """Column ``column`` of one action over its limit; nan where it is not finite."""
        value, limit = float(action[column]), self.limits[column]
        if limit > 0:
            return value / limit
        return value if math.isnan(value) else float(np.sign(value))


def instruments_size(names: Sequence[str], size: float = 1.0) -> tuple[int, int]:
    """(width, height) of the instruments for these action columns, pixels."""
    width = sum(width for width, _, _ in _places(names))
    return math.ceil(width * size), math.ceil(_HEIGHT * size)


def draw_instruments(action: np.ndarray, names: Sequence[str], scale: ActionScale, size: float = 1.0) -> np.ndarray:
    """``(D,)`` action as ``(H, W, 3)`` uint8 of :func:`instruments_size`.

    A full arrow or bar is the scale's limit; longer ones are cut there and red. No motion is a dot, a number that is
    not finite leaves its instrument crossed out.
    """
    picture = _face(tuple(names), size).copy()
    pen = _Pen(ImageDraw.Draw(picture), size * _FINE)
    left = 0.0
    for wide, kind, columns in _places(names):
        middle = left + wide / 2
        if kind == "compass":
            _arrow(pen, middle, scale.share(action, columns[0]), scale.share(action, columns[1]))
        elif kind == "gripper":
            _gripper(pen, middle, float(action[columns[0]]))
        else:
            _bar(pen, middle, scale.share(action, columns[0]), MOVE if names[columns[0]] in TRANSLATION else TURN)
        left += wide
    pixels = np.array(picture.reduce(_FINE))
    if "gripper" in names:  # it comes last
        opening = float(action[names.index("gripper")])
        text = f"{opening:.2f}" if math.isfinite(opening) else "?"
        letters = round(10 * size)
        right = (left - _GRIPPER / 2) * size + font(letters).getlength(text) / 2
        figures(pixels, (right, (_TOP + 2 * _RADIUS + 14) * size), text, letters)
    return pixels


@lru_cache(maxsize=8)
def _face(names: tuple[str, ...], size: float) -> Pillow.Image:
    """What does not move: rims, tracks, letters. Enlarged; films draw thousands of instruments on it."""
    width, height = instruments_size(names, size)
    picture = Pillow.new("RGB", (width * _FINE, height * _FINE), PAPER)
    pen = _Pen(ImageDraw.Draw(picture), size * _FINE)
    left, top = 0.0, _TOP + 5
    for wide, kind, columns in _places(names):
        x, y = left + wide / 2, top + _RADIUS
        if kind == "compass":
            pen.disc(x, y, _RADIUS, outline=TRACK)
            pen.line((x - _RADIUS, y), (x + _RADIUS, y), colour=TRACK, width=0.8)
            pen.line((x, y - _RADIUS), (x, y + _RADIUS), colour=TRACK, width=0.8)
            pen.text(x + 4, top + 3, "x", 9, "lt", SOFT)
            pen.text(x - _RADIUS + 4, y - 3, "y", 9, "ls", SOFT)
        elif kind == "bar":
            name = names[columns[0]]
            pen.box(x - _BAR / 2, top, x + _BAR / 2, top + 2 * _RADIUS, TRACK)
            pen.line((x - _BAR / 2 - 1.5, y), (x + _BAR / 2 + 1.5, y), colour=SOFT, width=0.8)
            label = name[0] if name in TRANSLATION + ROTATION else str(columns[0])
            pen.text(x, top + 2 * _RADIUS + 3, label, 10, "mt", SOFT)
        left += wide
    return picture


def _places(names: Sequence[str]) -> list[tuple[float, str, tuple[int, ...]]]:
    """(width, kind, action columns) from left to right."""
    columns = {name: i for i, name in enumerate(names)}
    found: list[tuple[float, str, tuple[int, ...]]] = []
    if {"x", "y"} <= columns.keys():
        found.append((2 * _RADIUS + 10, "compass", (columns.pop("x"), columns.pop("y"))))
    gripper = columns.pop("gripper", None)
    found.extend((_BARS_APART, "bar", (column,)) for column in columns.values())
    if gripper is not None:
        found.append((_GRIPPER, "gripper", (gripper,)))
    return found


@dataclass(frozen=True)
class _Pen:
    """Draws in units of the plain picture on the enlarged one."""

    draw: ImageDraw.ImageDraw
    unit: float

    def line(self, *points: tuple[float, float], colour: Colour, width: float) -> None:
        self.draw.line([self._at(p) for p in points], fill=colour, width=max(1, round(width * self.unit)))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.draw.rectangle((*self._at((left, min(top, bottom))), *self._at((right, max(top, bottom)))), fill=colour)

    def disc(self, x: float, y: float, radius: float, **how: Colour) -> None:
        box = (*self._at((x - radius, y - radius)), *self._at((x + radius, y + radius)))
        self.draw.ellipse(box, width=round(1.2 * self.unit), **how)

    def shape(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        self.draw.polygon([self._at(p) for p in points], fill=colour)

    def text(self, x: float, y: float, text: str, size: float, anchor: str, colour: Colour) -> None:
        self.draw.text(self._at((x, y)), text, fill=colour, font=font(round(size * self.unit)), anchor=anchor)

    def _at(self, point: tuple[float, float]) -> tuple[float, float]:
        return point[0] * self.unit, point[1] * self.unit


def _arrow(pen: _Pen, x: float, ahead: float, left: float) -> None:
    y = _TOP + 5 + _RADIUS
    if not (math.isfinite(ahead) and math.isfinite(left)):
        _cross_out(pen, x, y)
        return
    length = math.hypot(ahead, left)
    colour = BEYOND if length > 1.0001 else MOVE
    shown = min(length, 1.0) * _RADIUS
    if shown < 2:
        pen.disc(x, y, 2, fill=colour)
        return
    along = (-left / length, -ahead / length)  # picture coordinates: x right, y down
    head = min(9.0, 0.75 * shown)
    neck = (x + along[0] * (shown - head), y + along[1] * (shown - head))
    pen.line((x, y), neck, colour=colour, width=3)
    wing = 0.55 * head
    sides = [(neck[0] + wing * across, neck[1] - wing * down) for across, down in (along[::-1], (-along[1], -along[0]))]
    pen.shape([(x + along[0] * shown, y + along[1] * shown), *sides], colour)


def _bar(pen: _Pen, x: float, share: float, colour: Colour) -> None:
    zero = _TOP + 5 + _RADIUS
    if not math.isfinite(share):
        _cross_out(pen, x, zero)
        return
    end = zero - max(-1.0, min(1.0, share)) * _RADIUS
    if end != zero:
        pen.box(x - _BAR / 2, zero, x + _BAR / 2, end, BEYOND if abs(share) > 1.0001 else colour)


def _gripper(pen: _Pen, x: float, opening: float) -> None:
    """A palm with two fingers hanging down, as far apart as the gripper is open."""
    top = _TOP + 5
    if not math.isfinite(opening):
        _cross_out(pen, x, top + _RADIUS)
        return
    half = 17 * max(0.0, min(1.0, opening))
    palm = top + 16
    pen.box(x - 3, top, x + 3, palm, SOFT)
    pen.box(x - 22, palm, x + 22, palm + 6, GRIP)
    pen.box(x - half - 5, palm + 6, x - half, top + 2 * _RADIUS, GRIP)
    pen.box(x + half, palm + 6, x + half + 5, top + 2 * _RADIUS, GRIP)


def _cross_out(pen: _Pen, x: float, y: float) -> None:
    for sign in (1, -1):
        pen.line((x - 4, y - 4 * sign), (x + 4, y + 4 * sign), colour=BEYOND, width=1.5)
