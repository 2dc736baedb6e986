"""Plausibility: whether falls accelerate as they do in the world, and bounces lose energy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from selfflow_mm.data.world.constants import GRAVITY

from .contacts import SeenContact
from .tracks import Track

#: A flight is fitted from so many frames on, and if the object moves so many pixels up or down in it ...
_SHORTEST, _TRAVEL = 5, 6.0
#: ... and at least so much of the way that it moves sideways: ramps are flatter.
_STEEP = 0.5
#: What a fall's acceleration may be, as a share of the world's gravity.
ACCELERATION = (0.5, 1.5)
#: A blow is judged from this speed on, pixels per frame: below, a pixel's error decides.
_JUDGED = 2.0
#: Speed after a blow as a share of that before, at most; no material of the world rebounds with more than 0.74.
REBOUND = 1.0


def accelerations(tracks: Sequence[Track], contacts: Sequence[SeenContact], fps: float) -> list[float]:
    """Vertical acceleration of each flight as a share of the world's gravity, positive downwards: least squares of a
    parabola through the whole object's places between two contacts."""
    found = []
    for number, track in enumerate(tracks):
        times = [contact.time for contact in contacts if number in contact.who]
        for start, end in zip([-1.0, *times], [*times, math.inf], strict=True):
            frames = np.array([t for t in np.flatnonzero(track.whole) if start + 0.25 < t < end - 0.25])
            # Its first stretch without a gap; what comes after a screen is another matter.
            if len(frames) and (breaks := np.flatnonzero(np.diff(frames) > 1)).size:
                frames = frames[: breaks[0] + 1]
            if len(frames) < _SHORTEST:
                continue
            x, y = track.place[frames].T
            if np.ptp(y) >= _TRAVEL and np.ptp(y) >= _STEEP * np.ptp(x):
                bend = np.polyfit((frames - frames.mean()) / fps, y, 2)[0]
                found.append(float(2 * bend / GRAVITY))
    return found


def rebounds(contacts: Sequence[SeenContact]) -> list[float]:
    """Speed after each blow as a share of that before: of all objects it moves together, as the root of the sum of
    squares, for all weigh the same."""
    found = []
    for contact in contacts:
        before, after = math.hypot(*contact.before), math.hypot(*contact.after)
        if math.isfinite(before) and math.isfinite(after) and max(before, after) >= _JUDGED:
            found.append(after / max(before, 1e-6))
    return found
