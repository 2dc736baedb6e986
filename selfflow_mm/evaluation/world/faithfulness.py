"""Whether a clip shows what its caption asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from selfflow_mm.data.world.grammar import Claims

from .tracks import Track


@dataclass(frozen=True)
class Faithfulness:
    """What of a caption's claims is seen; None where it claims nothing of the kind.

    Attributes:
        colour, shape, material: every object named has that colour (shape, look) in the picture.
        bound: every object named is seen with its colour, shape and (where named) material together.
        count: there are as many objects as are named, no more.
        word: every word named can be read.
    """

    colour: bool | None
    shape: bool | None
    material: bool | None
    bound: bool | None
    count: bool | None
    word: bool | None


def compare(claims: Claims, tracks: Sequence[Track], words: Sequence[str]) -> Faithfulness:
    """The caption's claims against the objects and words found."""
    objects = claims.objects
    if not objects:
        return Faithfulness(None, None, None, None, None, _all(claims.words, words))
    full = all(thing.colour and thing.material for thing in objects)
    return Faithfulness(
        colour=_all([thing.colour for thing in objects if thing.colour], [track.colour for track in tracks]),
        shape=_all([thing.shape for thing in objects], [track.shape for track in tracks]),
        material=_all([thing.material for thing in objects if thing.material], [track.material for track in tracks]),
        bound=_all(
            [(thing.colour, thing.shape, thing.material if full else None) for thing in objects],
            [(track.colour, track.shape, track.material if full else None) for track in tracks],
        ),
        count=len(tracks) == len(objects),
        word=_all(claims.words, words),
    )


def _all(asked: Sequence[Hashable], found: Iterable[Hashable]) -> bool | None:
    """Whether all that is asked is found, each as often as it is asked; None where nothing is asked."""
    return Counter(asked) <= Counter(found) if asked else None
