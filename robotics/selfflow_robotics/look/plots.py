"""Every action column over time, drawn once per episode; a film moves a cursor over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from ..robot_episode import ACTION_NAMES, RobotEpisode
from .instruments import ROTATION, TRANSLATION
from .lettering import INK, PAPER, SERIES, SOFT, TRACK, figures, font
from .units import display_unit

__all__ = ["ActionPlots"]

_FINE = 3  # drawn so many times larger and averaged, for smooth lines
_PANEL, _GAP, _TITLE, _LEFT = 78, 12, 17, 46
_PER_PANEL = len(SERIES)


@dataclass(frozen=True)
class _Panel:
    title: str
    columns: tuple[int, ...]


class ActionPlots:
    """The plots of one episode.

    Translation, rotation and gripper have a panel each; other columns are four to a panel. Actions hold for their whole
    step, so lines are steps. A panel reaches to its largest size, or where a few steps stick out by far (more than
    three times the 99th percentile), to that percentile with room; what sticks out is cut.

    Attributes:
        picture: RGB, ``width`` x :func:`height_of` the columns.
    """

    def __init__(self, episode: RobotEpisode, width: int) -> None:
        self._names, self._steps = episode.action_names, len(episode)
        factors = [display_unit(name, self._names)[0] for name in self._names]
        self._values = episode.actions.astype(np.float64) * np.asarray(factors)
        self._panels = _panels(self._names)
        house = self._names == ACTION_NAMES  # short names; others have more room
        self._width, self._letters = width, 8 if house else 18
        self._left, self._right = _LEFT, width - (128 if house else 210)
        fine = Pillow.new("RGB", (width * _FINE, self.height_of(self._names) * _FINE), PAPER)
        for row, panel in enumerate(self._panels):
            self._draw(ImageDraw.Draw(fine), panel, row)
        self.picture = fine.reduce(_FINE)

    @staticmethod
    def height_of(names: Sequence[str]) -> int:
        """Pixels from top to bottom for these action columns."""
        return len(_panels(names)) * (_TITLE + _PANEL + _GAP)

    def cursor_x(self, step: int) -> int:
        """The middle of a step, pixels from the left."""
        return round(self._left + (self._right - self._left) * (step + 0.5) / self._steps)

    def mark(self, pixels: np.ndarray, left: int, top: int, step: int) -> None:
        """Draw the cursor and the values of ``step`` on ``(H, W, 3)`` pixels that hold the plots at (left, top)."""
        x = left + self.cursor_x(step)
        for row, panel in enumerate(self._panels):
            y = top + self._top(row)
            pixels[y - 1 : y + _PANEL + 1, x] = INK
            for place, column in enumerate(panel.columns):
                value, unit = self._values[step, column], display_unit(self._names[column], self._names)[1]
                text = "not finite" if not np.isfinite(value) else f"{value:+.2f}{' ' if unit == 'cm' else ''}{unit}"
                middle = y + 11 + place * 19
                figures(pixels, (left + self._width - 6, middle), text, 13)

    def _top(self, row: int) -> int:
        return row * (_TITLE + _PANEL + _GAP) + _TITLE

    def _draw(self, draw: ImageDraw.ImageDraw, panel: _Panel, row: int) -> None:
        top, unit = self._top(row), display_unit(self._names[panel.columns[0]], self._names)[1]
        low, high, ticks = _range(self._values[:, panel.columns], panel.title)
        draw.text((_FINE * self._left, _FINE * (top - 4)), panel.title, fill=SOFT, font=font(12 * _FINE), anchor="ls")
        for value in ticks:
            y = top + _PANEL * (1 - (value - low) / (high - low))
            self._line(draw, [(self._left, y), (self._right, y)], TRACK, 1.0)
            text = f"{value:.3g}{unit if unit == '°' else ''}"
            draw.text((_FINE * (self._left - 6), _FINE * y), text, fill=SOFT, font=font(11 * _FINE), anchor="rm")
        for place, column in enumerate(panel.columns):
            colour = SERIES[place]
            values = self._values[:, column]
            heights = top + _PANEL * (1 - (np.clip(values, low, high) - low) / (high - low))
            for stretch in _finite_stretches(values):
                edges = [self._left + (self._right - self._left) * i / self._steps for i in (*stretch, stretch[-1] + 1)]
                points = [(x, heights[i]) for n, i in enumerate(stretch) for x in edges[n : n + 2]]
                self._line(draw, points, colour, 1.7)
            middle = top + 11 + place * 19
            self._line(draw, [(self._right + 10, middle), (self._right + 20, middle)], colour, 3.0)
            label = _short(self._names[column], column, self._letters)
            where = (_FINE * (self._right + 25), _FINE * middle)
            draw.text(where, label, fill=SOFT, font=font(12 * _FINE), anchor="lm")

    def _line(
        self, draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: tuple[int, int, int], width: float
    ) -> None:
        scaled = [(_FINE * x, _FINE * y) for x, y in points]
        draw.line(scaled, fill=colour, width=round(width * _FINE), joint="curve")


def _panels(names: Sequence[str]) -> list[_Panel]:
    columns = {name: i for i, name in enumerate(names)}
    panels = []
    for title, group in (
        ("translation", TRANSLATION),
        ("rotation", ROTATION),
        ("gripper (1 open, 0 closed)", ("gripper",)),
    ):
        if set(group) <= columns.keys():
            unit = display_unit(group[0], names)[1]
            heading = f"{title}, {'degrees' if unit == '°' else unit} per step" if unit else title
            panels.append(_Panel(heading, tuple(columns.pop(name) for name in group)))
    rest = list(columns.values())
    for start in range(0, len(rest), _PER_PANEL):
        panels.append(_Panel("action" if start == 0 else "", tuple(rest[start : start + _PER_PANEL])))
    return panels


def _range(values: np.ndarray, title: str) -> tuple[float, float, tuple[float, ...]]:
    """Bounds of a panel and its marks: 0 to 1 with some air for a gripper within that, else symmetric about zero."""
    finite = values[np.isfinite(values)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    if title.startswith("gripper") and largest <= 1 and (finite >= 0).all():
        return -0.1, 1.1, (0.0, 1.0)
    usual = float(np.quantile(np.abs(finite), 0.99)) if finite.size else 0.0
    reach = 1.2 * usual if 0 < 3 * usual < largest else 1.02 * largest
    if reach <= 0:
        return -1.0, 1.0, (-1.0, 0.0, 1.0)
    unit = 10.0 ** (math.floor(math.log10(reach)) - 1)
    reach = math.ceil(reach / unit) * unit  # two digits
    return -reach, reach, (-reach, 0.0, reach)


def _finite_stretches(values: np.ndarray) -> list[list[int]]:
    """Runs of steps whose value is finite."""
    runs: list[list[int]] = [[]]
    for step, good in enumerate(np.isfinite(values)):
        if good:
            runs[-1].append(step)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _short(name: str, column: int, letters: int) -> str:
    """A name; of a longer one the column's number, which its bar has too, and the end, which tells columns apart."""
    if len(name) <= letters:
        return name
    number = f"{column}: …"
    return f"{number}{name[len(number) - letters :]}"
