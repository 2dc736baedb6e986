"""Bodies and pictures in the making as arrays that compiled loops can read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .cameras import focal_length
from .shapes import Body, Camera, Form, Light, Look

NEAR, FAR = 0.01, 1e4

FORMS = ("box", "sphere", "cylinder", "capsule")
TEXTURES = ("plain", "label", "stripes", "checker", "wood", "speckle")

#: A body as it was given; ``form`` and ``texture`` are numbers in the tuples above.
BODY = np.dtype(
    [
        ("place", "f8", 3),
        ("turn", "f8", (3, 3)),
        ("form", "f8"),
        ("size", "f8", 3),
        ("colour", "f8", 3),
        ("accent", "f8", 3),
        ("gloss", "f8"),
        ("texture", "f8"),
        ("shadow", "f8"),
    ]
)

#: A body prepared for one camera and lamp; places and directions in the camera's frame but where said.
SOLID = np.dtype(
    [
        ("form", "i8"),
        ("texture", "i8"),
        ("colour", "f8", 3),
        ("accent", "f8", 3),
        ("gloss", "f8"),
        ("size", "f8", 3),  # half extents along the own axes
        ("order", "i8", 3),  # the own axes from the shortest to the longest
        ("radius", "f8"),
        ("half", "f8"),  # of the axis of a cylinder or capsule, without caps
        ("place", "f8", 3),
        ("axes", "f8", (3, 3)),  # its own, one a row
        ("origin", "f8", 3),  # the camera in the body's frame
        ("own", "f8", (3, 3)),  # in the body's frame: the lamp, the zenith, half way between the lamp and the camera
        ("scale", "f8"),  # pixels in a metre at its distance
        ("depth", "f8"),  # of its farthest corner
        ("edges", "i8"),  # of the outline of the box around it
        ("lines", "f8", (6, 3)),  # their distances in pixels, as a, b, c of a x + b y + c, positive inside
        ("faces", "i8"),  # of a box that the camera sees
        ("planes", "f8", (3, 3)),  # their inverse depths, in the same way
        ("facing", "f8", (3, 3)),  # cosines between their normals and the three directions of own
        ("soft", "f8"),  # metres from full shadow to none
        ("lit", "i8"),  # how many of a box's faces see the lamp
        ("sides", "i8"),  # of its shadow; those faces first
        ("walls", "f8", (9, 4)),  # their distances n P + d, positive inside
        ("measures", "f8", (4, 3)),  # directions in which the shadow of a round body is measured
        ("slope", "f8"),  # between a round body's axis and the lamp: cosine
        ("lean", "f8"),  # and sine
        ("ball", "f8"),  # radius around the body
        ("round", "f8"),  # radius of the ball that stands for it near its contact
        ("dark", "f8"),  # how much it darkens what is beneath it
        # Rectangles (first row, end row, first column, end column) where it is seen, its shadow falls and it darkens.
        ("shown", "i8", 4),
        ("falls", "i8", 4),
        ("near", "i8", 4),
    ]
)


class View(NamedTuple):
    """A camera and the lamp in front of it.

    Attributes:
        turn, place: as of Camera.
        lamp, up: ``(3,)`` directions of the lamp and the zenith in the camera's frame.
        rise: how much the lamp's direction rises in the base frame.
        focal: in pixels.
        x, y: ``(width,)`` and ``(height,)`` of the columns' and rows' rays at depth 1.
    """

    turn: np.ndarray
    place: np.ndarray
    lamp: np.ndarray
    up: np.ndarray
    rise: float
    focal: float
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, camera: Camera, light: Light, height: int, width: int) -> View:
        turn, lamp = np.array(camera.turn, np.float64), np.array(light.direction, np.float64)
        focal = focal_length(camera, height)
        x, y = (((np.arange(n) + 0.5 - 0.5 * n) / focal).astype(np.float32) for n in (width, height))
        return cls(turn, np.array(camera.place, np.float64), lamp @ turn, turn[2].copy(), float(lamp[2]), focal, x, y)


class Layer(NamedTuple):
    """A picture in the making.

    Attributes:
        light: ``(6, height, width)`` linear: red, green and blue from the lamp, then from the sky.
        depth, ids: ``(height, width)`` of the nearest body that covers half of the pixel or more.
        lamp_share, open_share: ``(height, width)`` what shadows leave of the lamp and the sky.
    """

    light: np.ndarray
    depth: np.ndarray
    ids: np.ndarray
    lamp_share: np.ndarray
    open_share: np.ndarray

    @classmethod
    def empty(cls, height: int, width: int) -> Layer:
        plane = np.ones((height, width), np.float32)
        light, depth = np.zeros((6, height, width), np.float32), np.full_like(plane, FAR)
        return cls(light, depth, np.full(plane.shape, -1, np.int32), plane, plane.copy())


def pack(bodies: Sequence[Body]) -> np.ndarray:
    """``(n, 25)`` float64: bodies as rows of BODY."""
    rows = np.empty((len(bodies), BODY.itemsize // 8))
    if len(bodies):
        rows[:, :3] = [body.place for body in bodies]
        rows[:, 3:12] = np.array([body.turn for body in bodies]).reshape(-1, 9)
        rows[:, 12:] = [_kind(body.form, body.size, body.look, body.shadow) for body in bodies]
    return rows


@lru_cache(maxsize=4096)
def _kind(form: Form, size: tuple[float, ...], look: Look, shadow: bool) -> tuple[float, ...]:
    extents = [*(abs(float(value)) for value in size), 0.0, 0.0][:3]
    paint = (*look.colour, *look.accent, look.gloss, TEXTURES.index(look.texture), shadow)
    return (FORMS.index(form), *extents, *paint)
