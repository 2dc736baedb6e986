"""Labels against a second library's geometry."""

from __future__ import annotations

import numpy as np
import pymunk
import pytest

from selfflow_mm.data.world.scene import SIZES, Scene, Sign, Thing
from selfflow_mm.data.world.vocabulary import COLOURS, SHAPES
from selfflow_mm.evaluation.world.labels import inside, label
from selfflow_mm.evaluation.world.reader_net import PAINTED, SCREEN, SIGN


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_inside_are_those_of_pymunk(shape: str) -> None:
    thing = Thing(shape, "red", "rubber", SIZES[shape][0])
    pose = np.array([31.3, 27.9, 0.4])
    body = pymunk.Body(1, 1)
    body.position, body.angle = (31.3, 27.9), 0.4
    corners = thing.corners()
    if shape == "ball":
        parts: list[pymunk.Shape] = [pymunk.Circle(body, thing.size / 2)]
    elif shape == "star":  # pymunk takes convex parts only
        parts = [pymunk.Poly(body, corners[1::2].tolist())]
        parts += [
            pymunk.Poly(body, [tuple(corners[k - 1]), tuple(corners[k]), tuple(corners[k + 1])])
            for k in range(0, 10, 2)
        ]
    else:
        parts = [pymunk.Poly(body, corners.tolist())]
    for part in parts:
        part.cache_bb()
    distance = np.array(
        [[min(p.point_query((x + 0.5, y + 0.5)).distance for p in parts) for x in range(64)] for y in range(64)]
    )
    sure = np.abs(distance) > 1e-3
    assert ((distance < 0) == inside(thing, pose))[sure].all() and inside(thing, pose).sum() > 100


def test_later_objects_and_the_screen_hide() -> None:
    things = (Thing("cube", "red", "metal", 14.0), Thing("ball", "blue", "glass", 14.0))
    states = np.tile(np.array([30.0, 40.0, 0.0]), (2, 3, 1))
    scene = Scene("", things, screen=(30, 30, 40, 56), sign=Sign("GO", 8))
    pixel = label(scene, states, [0, 2])
    assert pixel.shape == (2, 64, 64)
    assert pixel[0, 40, 28] == PAINTED + COLOURS.index("blue") and pixel[0, 34, 24] == PAINTED + COLOURS.index("red")
    assert pixel[0, 40, 33] == SCREEN and pixel[0, 6, 10] == SIGN and pixel[0, 20, 50] == 0
