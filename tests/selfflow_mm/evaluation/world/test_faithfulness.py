"""Claims of captions against tracks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from selfflow_mm.data.world.grammar import parse
from selfflow_mm.data.world.vocabulary import MATERIALS
from selfflow_mm.evaluation.world.faithfulness import compare
from selfflow_mm.evaluation.world.tracks import Track

CAPTION = "a red metal ball rolls in from the left and hits a blue wooden cube, which waits on the floor"


@pytest.fixture
def named(track_of: Callable[..., Track]) -> Callable[[str], Track]:
    def make(name: str) -> Track:
        colour, material, shape = name.split()
        track = track_of(np.tile([30.0, 40.0], (33, 1)), colour, shape)
        return replace(track, materials=np.tile(np.eye(4)[MATERIALS.index(material)], (33, 1)))

    return make


@pytest.mark.parametrize(
    ("seen", "right"),
    [
        (["red metal ball", "blue wooden cube"], "colour shape material bound count"),
        (["blue metal ball", "red wooden cube"], "colour shape material count"),  # each has the other's colour
        (["red metal ball"], ""),
        (["red metal ball", "blue wooden star"], "colour material count"),
        (["red metal ball", "blue wooden cube", "pink glass star"], "colour shape material bound"),
        (["red glass ball", "red wooden cube"], "shape count"),
    ],
)
def test_what_is_asked_is_looked_for(named: Callable[[str], Track], seen: list[str], right: str) -> None:
    found = compare(parse(CAPTION), [named(name) for name in seen], [])
    assert " ".join(k for k in ("colour", "shape", "material", "bound", "count") if getattr(found, k)) == right
    assert found.word is None


def test_words(named: Callable[[str], Track]) -> None:
    claims = parse("a sign on the wall says FROG and a black metal ball falls to the floor on the left")
    ball = [named("black metal ball")]
    assert compare(claims, ball, ["FROG"]).word and not compare(claims, ball, ["FRO"]).word
    assert not compare(claims, ball, []).word
