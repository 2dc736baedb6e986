"""What happens in a clip and exactly when, ready for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from .constants import STEP, WIDTH
from .physics import Contact, Motion, Roll
from .scene import Scene, Thing


def list_events(scene: Scene, motion: Motion) -> list[dict[str, Any]]:
    """Contacts, rolls and hidden times in order of time; docs/world.md has their fields."""
    events = [_contact(contact, scene) for contact in motion.contacts]
    events += [_roll(roll, scene, motion.path[roll.thing]) for roll in motion.rolls]
    for thing, path in zip(scene.things, motion.path, strict=True):
        events += _hidden(scene, thing, path)
    return sorted(events, key=lambda event: event["time"])


def _contact(contact: Contact, scene: Scene) -> dict[str, Any]:
    thing = scene.things[contact.thing]
    who, materials = [thing.name, str(contact.other)], [thing.material]
    if isinstance(contact.other, int):
        who[1] = scene.things[contact.other].name
        materials.append(scene.things[contact.other].material)
    return {
        "time": round(contact.time, 6),
        "kind": "contact",
        "place": _rounded(contact.place),
        "materials": materials,
        "impact": round(contact.impact, 4),
        "who": who,
    }


def _roll(roll: Roll, scene: Scene, path: np.ndarray) -> dict[str, Any]:
    thing = scene.things[roll.thing]
    last = min(roll.last, len(path) - 1)
    return {
        "time": round(roll.time, 6),
        "until": round(roll.until, 6),
        "kind": "roll" if thing.shape == "ball" else "slide",
        "places": [_rounded(path[roll.first, :2]), _rounded(path[last, :2])],
        "materials": [thing.material],
        "speed": round(float(roll.speeds.mean()), 2),
        "who": [thing.name, roll.surface],
    }


def _hidden(scene: Scene, thing: Thing, path: np.ndarray) -> list[dict[str, Any]]:
    """The times at which nothing of an object can be seen: it is outside the picture, or wholly behind the screen."""
    left, right = thing.reach(path[:, 2])
    low, high = path[:, 0] - left, path[:, 0] + right
    outside = (high <= 0) | (low >= WIDTH) | (path[:, 1] + thing.depths(path[:, 2]) <= 0)
    causes = {"edge": outside}
    if scene.screen is not None:
        # A screen reaches from above everything that rolls on the floor down to its foot.
        causes["screen"] = (low >= scene.screen[0]) & (high <= scene.screen[2])
    return [
        {
            "time": round(first * STEP, 6),
            "until": round(last * STEP, 6),
            "kind": "hidden",
            "by": by,
            "who": [thing.name],
        }
        for by, gone in causes.items()
        for first, last in _runs(gone)
    ]


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(end) - 1) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _rounded(place: np.ndarray | tuple[float, float]) -> list[float]:
    return [round(float(value), 3) for value in place]
