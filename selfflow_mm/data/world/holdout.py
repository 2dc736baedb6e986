"""What training never sees: some pairs of shape and material or colour, some words, some forms of captions.

Clips of the split "train" contain none of it. Each clip of the split "test" contains exactly one kind of it (its
*novelty*), so that a score per novelty says what a model generalises to. Every shape, colour, material and letter is
seen in training; only the combination is new. Caption forms are marked in ``forms``.
"""

from __future__ import annotations

from typing import Literal, get_args

from selfflow_mm.errors import UserError

Split = Literal["train", "test"]
Novelty = Literal["material", "colour", "word", "form"]
NOVELTIES: tuple[Novelty, ...] = get_args(Novelty)

#: One material and one colour of each shape.
HELD_OUT_MATERIALS: dict[str, str] = {
    "ball": "glass",
    "cube": "rubber",
    "triangle": "metal",
    "star": "wooden",
    "block": "glass",
}
HELD_OUT_COLOURS: dict[str, str] = {
    "ball": "orange",
    "cube": "pink",
    "triangle": "green",
    "star": "blue",
    "block": "red",
}
HELD_OUT_WORDS: tuple[str, ...] = ("UP", "DOG", "TOY", "FUN", "HAT", "FROG", "HOME", "PLAY")


def check_split(split: str) -> None:
    """Raises UserError for anything but the two splits."""
    if split not in get_args(Split):
        raise UserError(f"a world's split is train or test, got '{split}'")
