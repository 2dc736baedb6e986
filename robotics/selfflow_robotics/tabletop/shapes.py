"""What the tabletop's physics hands to its renderer: simple bodies with a place and a look.

The frame is the robot's base: x ahead, y to the left, z up, metres; colours are linear RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Form = Literal["box", "sphere", "cylinder", "capsule"]
Texture = Literal["plain", "label", "stripes", "checker", "wood", "speckle"]


@dataclass(frozen=True)
class Look:
    """How a surface looks. ``accent`` is the second colour of textures other than plain."""

    colour: tuple[float, float, float]
    texture: Texture = "plain"
    accent: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gloss: float = 0.2


@dataclass(frozen=True, eq=False)
class Body:
    """One visible convex solid.

    Attributes:
        name: of the object it belongs to; bodies of one object share it ("can", "drawer:top", "gripper").
        form: box, sphere, cylinder or capsule; the last two along their own z axis.
        size: half extents (x, y, z) of a box; (radius,) of a sphere; (radius, half length) of a cylinder; of a capsule
            the same, half length without its caps.
        place: ``(3,)`` centre.
        turn: ``(3, 3)`` rotation, own axes -> base frame.
        look: its surface.
        shadow: whether it casts one.
    """

    name: str
    form: Form
    size: tuple[float, ...]
    place: np.ndarray
    turn: np.ndarray
    look: Look
    shadow: bool = True


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Attributes:
        place: ``(3,)`` metres.
        turn: ``(3, 3)`` camera axes -> base frame; the camera looks along its own +z, +x is to the right of the
            picture, +y down (OpenCV's convention).
        fov: vertical field of view, radians.
    """

    place: np.ndarray
    turn: np.ndarray
    fov: float


@dataclass(frozen=True)
class Light:
    """One directional light (a lamp far away) and the sky's.

    ``direction`` points from the scene to the lamp and has length 1; ``strength`` and ``ambient`` multiply colours,
    ``warmth`` in [-1, 1] tints the lamp from blue to orange.
    """

    direction: tuple[float, float, float]
    strength: float = 0.8
    ambient: float = 0.35
    warmth: float = 0.1
