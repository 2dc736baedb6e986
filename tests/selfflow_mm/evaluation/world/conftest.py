"""Tracks made by hand, and true clips with the bundled reader."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from selfflow_mm.data.world.clip import WorldClip, make_clip
from selfflow_mm.data.world.vocabulary import MATERIALS, SHAPES
from selfflow_mm.evaluation.world.reader import Reader
from selfflow_mm.evaluation.world.tracks import Track


@pytest.fixture
def track_of() -> Callable[..., Track]:
    """A whole ball of 150 pixels at each ``place`` (x, y); frames whose place is NaN do not show it."""

    def make(place: np.ndarray, colour: str = "red", shape: str = "ball") -> Track:
        there = ~np.isnan(place[:, 0])
        shapes = np.full((len(place), len(SHAPES)), -9.0)
        shapes[:, SHAPES.index(shape)] = 0.0
        middle = np.where(there[:, None], place, 0.0)
        box = np.concatenate([np.floor(middle - 7), np.ceil(middle + 7)], axis=1).clip(0, 64).astype(np.int64)
        cut = there & ((box[:, 0] == 0) | (box[:, 2] == 64) | (box[:, 1] == 0))
        return Track(colour, 150.0 * there, place, cut, box, shapes, np.zeros((len(place), len(MATERIALS))))

    return make


@pytest.fixture(scope="session")
def world_reader() -> Reader:
    return Reader.load()


@pytest.fixture(scope="session")
def world_clips() -> list[WorldClip]:
    return [make_clip(81_001, index, "test") for index in range(12)]
