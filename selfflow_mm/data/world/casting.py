"""Who plays in a clip: shapes, colours, materials, sizes and words, with what is held out kept out (or put in)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .holdout import HELD_OUT_COLOURS, HELD_OUT_MATERIALS, HELD_OUT_WORDS, Novelty
from .scene import SIZES, Thing
from .vocabulary import COLOURS, MATERIALS, WORDS


class Casting:
    """Draws the objects of one scene; no two have the same colour.

    Args:
        rng: the clip's random numbers.
        novelty: what of the held-out things the scene shows: the first object drawn has the held-out material or
            colour of its shape, or the word is a held-out one. None or "form": nothing.
    """

    def __init__(self, rng: np.random.Generator, novelty: Novelty | None) -> None:
        self._rng = rng
        self._novelty = novelty
        self._colours: list[str] = []

    def thing(self, shapes: Sequence[str], word: str = "") -> Thing:
        """An object of one of the shapes at no place yet."""
        shape = self._choose(shapes)
        new = self._novelty if not self._colours else None
        if new == "material":
            material = HELD_OUT_MATERIALS[shape]
        else:
            material = self._choose([name for name in MATERIALS if name != HELD_OUT_MATERIALS[shape]])
        if new == "colour":
            colour = HELD_OUT_COLOURS[shape]
        else:
            usual = [name for name in COLOURS if name != HELD_OUT_COLOURS[shape] and name not in self._colours]
            colour = self._choose(usual)
        self._colours.append(colour)
        return Thing(shape, colour, material, float(self._rng.uniform(*SIZES[shape])), word=word)

    def word(self, longest: int) -> str:
        """A word of at most so many letters."""
        words = [word for word in WORDS if (word in HELD_OUT_WORDS) == (self._novelty == "word")]
        return self._choose([word for word in words if len(word) <= longest])

    def _choose(self, options: Sequence[str]) -> str:
        return options[int(self._rng.integers(len(options)))]
