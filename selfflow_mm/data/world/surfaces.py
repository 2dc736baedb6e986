"""How paints and materials look.

The colour is the paint on an object; the material shows as its finish, coarse enough to survive a small picture:

- wooden: dark grain, in stripes that turn with the object;
- metal: a bright band of sheen that stays where the light is, and a dark rim;
- rubber: matt, with a thick dark edge;
- glass: a rim of the full colour around a paler inside with a spark.
"""

from __future__ import annotations

import numpy as np

from .scene import Thing
from .text import LETTER_HEIGHT, PITCH

#: sRGB of the eight colours; the two nearest (red, orange) are 53 apart in CIELAB, all at least 38 from the wall.
PAINT: dict[str, tuple[int, int, int]] = {
    "red": (204, 12, 36),
    "orange": (255, 142, 0),
    "yellow": (250, 242, 36),
    "green": (10, 158, 36),
    "blue": (36, 72, 224),
    "pink": (248, 112, 206),
    "white": (250, 250, 250),
    "black": (26, 22, 30),
}
_LIGHT = np.array([255, 255, 255], dtype=np.float32)
_GREY_ON_BLACK = np.array([84, 80, 92], dtype=np.float32)
#: Paints on which writing is light; on the others it is dark.
_DARK_PAINTS = ("red", "green", "blue", "black")


def ink(colour: str) -> np.ndarray:
    """The colour of writing on a paint."""
    return np.array([250, 250, 246] if colour in _DARK_PAINTS else [20, 20, 28], dtype=np.float32)


def finish(
    thing: Thing,
    distance: np.ndarray,
    facing: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
) -> np.ndarray:
    """The colours of an object's surface, float32 ``(..., 3)`` in [0, 255].

    Args:
        thing: gives colour, material and size.
        distance: to the outline, pixels, negative inside.
        facing: how much the surface faces the light, about -1 to 1.
        x, y: pixels from the centre; ``u, v``: the same, turned with the object.
    """
    paint = np.array(PAINT[thing.colour], dtype=np.float32)
    black, white = thing.colour == "black", thing.colour == "white"
    # Black cannot darken: what is darker on other paints is greyer on it. White cannot brighten: its glass and metal
    # are a little grey, or nothing would show on them.
    dark = _GREY_ON_BLACK if black else paint * np.float32(0.38 if white else 0.56)
    if thing.colour == "yellow":
        dark = np.array([190, 148, 0], dtype=np.float32)  # a darker yellow would be an olive green
    pale = paint * np.float32(0.44) + np.float32(124)
    if black or white:
        pale = np.array([92, 94, 104] if black else [200, 208, 224], dtype=np.float32)
    if white and thing.material == "metal":
        paint = paint * np.float32(0.87)
    strength = {"wooden": 0.22, "metal": 0.3, "rubber": 0.14, "glass": 0.2}[thing.material]
    light = np.clip(1 + strength * facing, 0.6, 1.25)[..., None]
    colour = paint * light + np.float32(22 if black else 0) * np.clip(facing, 0, 1)[..., None]
    inside = -distance
    if thing.material == "wooden":
        dark = paint * np.float32(0.6) if white else dark
        grain = np.clip(1.6 * np.cos(2 * np.pi * (v + 0.5 * np.sin(u * 0.45)) / 4.6) - 0.5, 0, 1)
        colour = _mix(colour, dark, 0.85 * grain)
    elif thing.material == "metal":
        along = (x * 0.62 + y * 0.78) / thing.size  # across the band, from upper left to lower right
        sheen = np.exp(-(((along + 0.12) / 0.11) ** 2))
        colour = _mix(colour, _LIGHT, 0.85 * sheen)
        colour = _mix(colour, dark, 0.5 * np.clip(along / 0.4, 0, 1))
        colour = _mix(colour, dark, np.clip(1.6 - inside, 0, 1) * 0.8)
    elif thing.material == "rubber":
        edge = 1.5 if thing.shape == "star" else 2.2  # of a star's narrow arms enough paint must remain
        colour = _mix(colour, dark, np.clip(edge - inside, 0, 1))
    else:
        colour = _mix(colour, pale, np.clip(inside - 2.2, 0, 1) * np.clip(0.8 - facing * 0.2, 0, 1))
        spark = np.exp(-(((x + 0.2 * thing.size) ** 2 + (y + 0.17 * thing.size) ** 2) / (0.11 * thing.size) ** 2))
        colour = _mix(colour, _LIGHT, np.where(inside > 0.5, spark, 0))
    if thing.word:  # a plain field to write on
        field = (np.abs(u) < PITCH * len(thing.word) / 2 + 0.5) & (np.abs(v) < LETTER_HEIGHT / 2 + 0.5)
        colour = _mix(colour, paint, np.where(field, 0.75, 0.0))
    return np.clip(colour, 0, 255).astype(np.float32)


def _mix(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return colour + share[..., None].astype(np.float32) * (other - colour)
