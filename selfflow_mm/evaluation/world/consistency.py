"""Temporal consistency: whether objects stay, stay whole, and keep colour, shape and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfflow_mm.data.world.vocabulary import SHAPES

from .tracks import Track

#: Range of an object's area, as a share of its median, while nothing cuts it.
_STEADY = (0.72, 1.3)
#: Share of the frames in which an object must be of one shape.
_SAME_SHAPE = 0.8
#: An object that goes and another that comes within so many frames and pixels are one that changed its colour.
_FRAMES, _PIXELS = 3, 12.0


@dataclass(frozen=True)
class Consistency:
    """How many objects of a clip ...

    Attributes:
        vanished: are gone, or less than half there, in a frame without border or screen to hide them, or come from
            nowhere.
        recoloured: are gone where and when one of another colour appears.
        unsteady: change their area though nothing cuts them.
        reshaped: are of one shape in less than four fifths of the frames.
    """

    vanished: int
    recoloured: int
    unsteady: int
    reshaped: int

    @property
    def whole(self) -> bool:
        """Nothing of it happens."""
        return not (self.vanished or self.recoloured or self.unsteady or self.reshaped)


def check(tracks: Sequence[Track]) -> Consistency:
    """Count what should not happen."""
    gone = [gaps(track) for track in tracks]
    recoloured = {
        (i, j)
        for i, ends in enumerate(gone)
        for j, starts in enumerate(gone)
        if i != j and any(_turns_into(tracks[i], end, tracks[j], start) for end in ends for start in starts)
    }
    changed = {number for pair in recoloured for number in pair}
    return Consistency(
        vanished=sum(bool(found) for number, found in enumerate(gone) if number not in changed),
        recoloured=len(recoloured),
        unsteady=sum(not _steady(track) for track in tracks),
        reshaped=sum(not _one_shape(track) for track in tracks),
    )


def gaps(track: Track) -> list[tuple[int, int]]:
    """First and last frame of each time in which an object is missing without a reason, the time before it comes
    included."""
    there, frames = track.there, len(track.area)
    found, start = [], None
    for t in range(frames + 1):
        missing = t < frames and not there[t]
        if missing and start is None:
            start = t
        if not missing and start is not None:
            if not _excused(track, start, t - 1):
                found.append((start, t - 1))
            start = None
    return found


def _excused(track: Track, start: int, end: int) -> bool:
    """Whether an object may be out of sight from ``start`` to ``end``: it went, and comes back, over the border or
    behind the screen."""
    cut, there = track.cut, track.there
    goes = start == 0 or cut[start - 1] or cut[start]
    comes = end == len(cut) - 1 or cut[end + 1] or cut[end]
    if start == 0:
        return bool(comes and there.any())
    return bool(goes and comes)


def _turns_into(one: Track, end: tuple[int, int], other: Track, start: tuple[int, int]) -> bool:
    """Whether ``one`` goes for good at about the time and place where ``other`` first comes."""
    if end[1] != len(one.area) - 1 or start[0] != 0:
        return False
    last, first = end[0] - 1, start[1] + 1
    if last < 0 or first >= len(other.area) or abs(first - last) > _FRAMES:
        return False
    return bool(np.hypot(*(one.place[last] - other.place[first])) <= _PIXELS)


def _steady(track: Track) -> bool:
    share = track.area[track.there & ~track.cut] / track.size
    return bool(((share >= _STEADY[0]) & (share <= _STEADY[1])).all())


def _one_shape(track: Track) -> bool:
    whole = track.whole
    if not whole.any():
        return True
    votes = track.shapes[whole].argmax(axis=1)
    return bool((votes == SHAPES.index(track.shape)).mean() >= _SAME_SHAPE)
