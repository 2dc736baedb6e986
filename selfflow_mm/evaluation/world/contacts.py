"""Contacts in the picture: moments at which an object's velocity jumps, to a fraction of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selfflow_mm.data.world.constants import GRAVITY, HEIGHT, WIDTH

from .tracks import Track

#: A jump of the velocity in pixels per frame from which on it is a contact: 26 pixels/s, an impact of 0.15. From 1.3 on
#: 2 % more of the true contacts would be found, and three times as many jerks of decoded pictures taken for contacts.
JUMP = 1.6
#: Share of a jump that must still be there one frame further on either side, or only one place was read wrongly.
_LASTS = 0.75
#: Contacts of one object are at least so many frames apart; of two objects that touch, one blow is within so many.
_APART, _ONE_BLOW = 1.5, 1.1
#: Frames from the moment an object's edge comes in until a frame shows enough of it to be seen (median of true clips).
_SEEN_LATE = 1.3
#: Gap in pixels between two boxes that may be touching.
_TOUCHING = 3.0


@dataclass(frozen=True)
class SeenContact:
    """A blow: ``time`` in frames (fractions count), the objects (numbers of tracks) it moves, the ``jump`` of the
    velocity in pixels per frame, and the speeds ``before`` and ``after`` in pixels per frame of each object (NaN where
    too few frames show them)."""

    time: float
    who: tuple[int, ...]
    jump: float
    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True)
class SeenEvents:
    """``contacts`` in order of time, and ``entrances``: times in frames at which an object comes in from a side,
    rolling or sliding, which is heard too."""

    contacts: tuple[SeenContact, ...]
    entrances: tuple[float, ...]


def find_events(tracks: Sequence[Track], fps: float) -> SeenEvents:
    """What is to be heard, by the picture alone."""
    single = [contact for number, track in enumerate(tracks) for contact in _of_track(number, track, fps)]
    entrances = [first for track in tracks if (first := _enters(track)) is not None]
    return SeenEvents(tuple(_joined(sorted(single, key=lambda c: c.time), tracks)), tuple(sorted(entrances)))


def excess(track: Track, fps: float) -> np.ndarray:
    """Second differences of the place less half of gravity's, ``(T, 2)`` in pixels per frame squared.

    Half, because an object in the air has all of it and one that rests has none: either way what is left is small
    against a contact. NaN where one of the three frames does not show the whole object.
    """
    place = np.where(track.whole[:, None], track.place, np.nan)
    bend = np.full_like(place, np.nan)
    bend[1:-1] = place[2:] - 2 * place[1:-1] + place[:-2]
    bend[:, 1] -= _gravity(fps) / 2
    return bend


def _gravity(fps: float) -> float:
    return GRAVITY / fps**2


def _of_track(number: int, track: Track, fps: float) -> list[SeenContact]:
    """Where two successive second differences add up to a jump: a blow between frames t and t + 1 bends both t and
    t + 1, each by its share of the way from the one to the other."""
    bend = excess(track, fps)
    pair = bend[:-1] + bend[1:]
    size = np.nan_to_num(np.hypot(*pair.T), nan=0.0)
    found: list[SeenContact] = []
    for t in np.argsort(-size, kind="stable"):
        if size[t] < JUMP:
            break
        along = pair[t] / size[t]
        first, second = (max(0.0, float(bend[k] @ along)) for k in (t, t + 1))
        time = float(t + second / (first + second))
        alone = all(abs(time - other.time) > _APART for other in found)
        if alone and _lasts(track, int(t), along, float(size[t]), fps):
            before, after = _speeds(track, int(t), time, fps)
            found.append(SeenContact(time, (number,), float(size[t]), (before,), (after,)))
    return found


def _lasts(track: Track, t: int, along: np.ndarray, jump: float, fps: float) -> bool:
    """Whether the velocity over two frames before and after a blow between ``t`` and ``t + 1`` differs as well; where
    too few frames show the whole object there is nothing to say against it."""
    if t < 2 or t + 3 >= len(track.area) or not track.whole[t - 2 : t + 4].all():
        return True
    place = track.place
    change = (place[t + 3] - place[t + 1] - place[t] + place[t - 2]) / 2 - [0.0, 1.5 * _gravity(fps)]
    return bool(change @ along >= _LASTS * jump)


def _speeds(track: Track, t: int, time: float, fps: float) -> tuple[float, float]:
    """Speeds just before and after a blow between frames ``t`` and ``t + 1``; a fall goes on up to the blow."""
    place = np.where(track.whole[:, None], track.place, np.nan)
    found = []
    for k, offset in ((t - 1, time - (t - 0.5)), (t + 1, time - (t + 1.5))):
        if 0 <= k and k + 1 < len(place):
            step = place[k + 1] - place[k]
            rests = abs(step[1]) < 0.35 and place[k + 1, 1] > HEIGHT / 2
            step = step + np.array([0.0, 0.0 if rests else _gravity(fps) * offset])
            found.append(float(np.hypot(*step)))
        else:
            found.append(np.nan)
    return found[0], found[1]


def _joined(contacts: list[SeenContact], tracks: Sequence[Track]) -> list[SeenContact]:
    """Two objects that touch and jump at once have hit each other: one contact."""
    joined: list[SeenContact] = []
    for contact in contacts:
        for k, other in enumerate(joined):
            if (
                len(other.who) == 1
                and other.who != contact.who
                and contact.time - other.time <= _ONE_BLOW
                and _touch(tracks[other.who[0]], tracks[contact.who[0]], round(contact.time))
            ):
                strongest = max(contact, other, key=lambda c: c.jump)
                joined[k] = SeenContact(
                    strongest.time,
                    other.who + contact.who,
                    strongest.jump,
                    other.before + contact.before,
                    other.after + contact.after,
                )
                break
        else:
            joined.append(contact)
    return joined


def _touch(one: Track, other: Track, frame: int) -> bool:
    gaps = []
    for t in range(max(0, frame - 1), min(len(one.area), frame + 2)):
        if one.area[t] and other.area[t]:
            a, b = one.box[t], other.box[t]
            gaps.append(max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]))
    return bool(gaps) and min(gaps) <= _TOUCHING


def _enters(track: Track) -> float | None:
    """When an object's edge comes in from the left or the right, in frames, or None."""
    first = int(np.argmax(track.area > 0))
    side = track.box[first, 0] == 0 or track.box[first, 2] == WIDTH
    from_above = track.box[first, 1] == 0
    return max(0.0, first - _SEEN_LATE) if first and side and not from_above else None
