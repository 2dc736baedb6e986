"""Words on pictures: Pillow's built-in scalable font, lines that wrap, and colours that go together."""

from __future__ import annotations

import bisect
from functools import lru_cache

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]

# Surfaces and text of sheets and films; the series colours are Okabe and Ito's, which colour-blind people can tell
# apart (Color Universal Design, 2008).
PAPER, INK, SOFT, TRACK = (24, 24, 27), (236, 236, 238), (160, 160, 168), (66, 66, 74)
ORANGE, SKY, GREEN, RED = (240, 165, 0), (86, 180, 233), (0, 190, 140), (240, 80, 60)
SERIES = (ORANGE, SKY, GREEN, (204, 121, 167))


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The built-in font at ``size`` pixels; it covers European scripts, other letters show as boxes."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont)
    return found


def wrap(text: str, size: int, width: float) -> list[str]:
    """Lines of at most ``width`` pixels, broken between words, and inside a word that is wider than a line."""
    letters = font(size)
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if letters.getlength(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while len(word) > 1 and letters.getlength(word) > width:
                fits = _fitting(word, letters, width)
                lines.append(word[:fits])
                word = word[fits:]
            line = word
        lines.append(line)
    return lines


def _fitting(word: str, letters: ImageFont.FreeTypeFont, width: float) -> int:
    """How many of the word's first letters fit, at least one; measuring takes long, so by halving."""
    return max(1, bisect.bisect_right(range(1, len(word)), width, key=lambda n: letters.getlength(word[:n])))


def fit(text: str, width: float, lines: int, sizes: tuple[int, ...] = (18, 15, 12)) -> tuple[int, list[str]]:
    """The largest of ``sizes`` at which ``text`` takes the space of ``lines`` lines at the first one, and its lines.

    What does not fit at the smallest size either is cut, with an ellipsis.
    """
    height = lines * line_height(sizes[0])
    for size in sizes:
        wrapped = wrap(text, size, width)
        room = max(1, height // line_height(size))
        if len(wrapped) <= room:
            return size, wrapped
    kept, last = wrapped[: room - 1], wrapped[room - 1]
    while last and font(size).getlength(f"{last}…") > width:
        last = last[:-1]
    return size, [*kept, f"{last.rstrip()}…"]


def line_height(size: int) -> int:
    """Pixels from one line's top to the next one's."""
    return round(size * 1.35)


def figures(pixels: np.ndarray, place: tuple[float, float], text: str, size: int, colour: Colour = INK) -> None:
    """Write a number that ends at ``place`` (right edge, middle of the line) into ``(H, W, 3)`` pixels of ``PAPER``.

    Drawing a text takes longer than all else in a film's frame; figures are few, so each is drawn once and copied.
    What would reach over the edge is left out.
    """
    glyphs = [_glyph(letter, size, colour) for letter in text]
    left = place[0] - sum(advance for _, advance in glyphs)
    for glyph, advance in glyphs:
        height, width, _ = glyph.shape
        x, y = round(left), round(place[1] - height / 2)
        if x >= 0 <= y and x + width <= pixels.shape[1] and y + height <= pixels.shape[0]:
            pixels[y : y + height, x : x + width] = glyph
        left += advance


@lru_cache(maxsize=1024)
def _glyph(letter: str, size: int, colour: Colour) -> tuple[np.ndarray, float]:
    """One letter on ``PAPER`` and how far the next one is."""
    letters = font(size)
    ascent, descent = letters.getmetrics()
    advance = letters.getlength(letter)
    tile = Pillow.new("RGB", (max(1, round(advance)), ascent + descent), PAPER)
    ImageDraw.Draw(tile).text((0, ascent), letter, fill=colour, font=letters, anchor="ls")
    return np.asarray(tile), advance
