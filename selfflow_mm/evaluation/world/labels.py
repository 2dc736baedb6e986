"""What each pixel of a true clip shows, from the clip's own scene and motion: what the reader learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfflow_mm.data.world.constants import HEIGHT, WIDTH
from selfflow_mm.data.world.scene import Scene, Thing
from selfflow_mm.data.world.vocabulary import COLOURS

from .reader_net import PAINTED, SCREEN, SIGN


def inside(thing: Thing, pose: np.ndarray) -> np.ndarray:
    """The pixels whose centre lies in the object at ``pose`` (x, y, angle), bool ``(HEIGHT, WIDTH)``."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5 - pose[0], np.arange(HEIGHT) + 0.5 - pose[1])
    if thing.shape == "ball":
        return x**2 + y**2 <= (thing.size / 2) ** 2
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    u, v = cos * x + sin * y, cos * y - sin * x
    corners = thing.corners()
    odd = np.zeros(u.shape, dtype=bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):  # a ray to the right crosses the edge
        if a[1] != b[1]:
            odd ^= ((a[1] > v) != (b[1] > v)) & (u < (b[0] - a[0]) * (v - a[1]) / (b[1] - a[1]) + a[0])
    return odd


def label(scene: Scene, states: np.ndarray, frames: Sequence[int]) -> np.ndarray:
    """What the pixels of some frames show, indices of ``reader_net.PIXELS``; int64 ``(n, H, W)``.

    Args:
        scene: the room and its objects; later objects hide earlier ones, the screen hides all.
        states: ``(objects, FRAMES, 3)``.
        frames: which frames.
    """
    pixel = np.zeros((len(frames), HEIGHT, WIDTH), np.int64)
    if scene.sign is not None:
        left, top, right, bottom = scene.sign.box
        pixel[:, top:bottom, left:right] = SIGN
    for n, frame in enumerate(frames):
        for thing, path in zip(scene.things, states, strict=True):
            pixel[n, inside(thing, path[frame])] = PAINTED + COLOURS.index(thing.colour)
    if scene.screen is not None:
        left, top, right, bottom = scene.screen
        pixel[:, top:bottom, left:right] = SCREEN
    return pixel
