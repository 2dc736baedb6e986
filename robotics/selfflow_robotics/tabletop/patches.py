"""One body as it looks where nothing is in front of it: what of each pixel it covers, how far away, how bright."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import shading
from .rays import Rectangle, Solids, cast
from .textures import accent_share


@dataclass(slots=True)
class Patch:
    """A body in its bounding rectangle; arrays ``(rows, columns)``.

    Attributes:
        cover: share of each pixel that it covers, in [0, 1].
        solid: whether that is half of it or more.
        depth: metres along the optical axis.
        light: ``(6, rows, columns)`` linear colours from the lamp, then from the sky, without shadows; ``(6, 1, 1)``
            where they are the same everywhere.
    """

    cover: np.ndarray
    solid: np.ndarray
    depth: np.ndarray
    light: np.ndarray


def paint(solids: Solids, i: int, rectangle: Rectangle, lamp: np.ndarray, sky: np.ndarray) -> Patch:
    """Body ``i`` under a lamp and a sky of ``(3,)`` linear colours."""
    look = solids.bodies[i].look
    hit = cast(solids, i, rectangle)
    solid = hit.inside >= 0
    cover = hit.inside
    cover += np.float32(0.5)
    np.maximum(cover, np.float32(0), out=cover)
    np.minimum(cover, np.float32(1), out=cover)
    both = np.array([lamp, sky])
    colour = both * look.colour
    share = None if look.texture == "plain" else _accent_share(solids, i, rectangle, hit.depth)
    level = hit.along[:2]
    level[0] = shading.lambert(level[0])
    level[1] = shading.sky(level[1])
    if share is None:
        light = colour.astype(np.float32)[:, :, None, None] * level[:, None]
    else:
        change = both * np.subtract(look.accent, look.colour)
        light = change.astype(np.float32)[:, :, None, None] * share
        light += colour.astype(np.float32)[:, :, None, None]
        light *= level[:, None]
    if look.gloss > 0:
        shine = shading.highlight(hit.along[2], look.gloss)
        light[0] += lamp.astype(np.float32)[:, None, None] * shine
    return Patch(cover, solid, hit.depth, light.reshape(6, *light.shape[2:]))


def _accent_share(solids: Solids, i: int, rectangle: Rectangle, depth: np.ndarray) -> np.ndarray | None:
    points = solids.grid.affine(solids.rays[i], rectangle)
    points *= depth
    points += solids.origin[i].astype(np.float32)[:, None, None]
    pixel = max(float(solids.place[i, 2]), 0.1) / solids.grid.focal
    return accent_share(solids.bodies[i], solids.size[i], points, pixel)
