"""How far the measures themselves can be trusted: what they find in true clips against the clips' exact events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from selfflow_mm.data.world.clip import WorldClip
from selfflow_mm.data.world.constants import FPS, FRAMES

from .measure import Row

#: Blows weaker than this (27 pixels/s) need not be found in the picture, nor those under ``HEARD`` in the sound; what
#: is found may be any listed blow.
SEEN, HEARD = 0.15, 0.1
#: A contact bends the path in frames before and after it: none is found outside this range of frames.
_RANGE = (1.5, FRAMES - 2.5)
#: Seconds by which an onset may miss its event.
_ONSET = 0.03


@dataclass(frozen=True)
class Rate:
    """``found`` of ``total``."""

    found: int
    total: int

    @property
    def share(self) -> float:
        return self.found / self.total if self.total else float("nan")


def validate(pairs: Iterable[tuple[WorldClip, Row]]) -> dict[str, Rate]:
    """Rates of what rows say of their clips.

    Returns:
        ``contacts found``, ``contacts true`` (of those seen), ``onsets found``, ``onsets true``; ``colours``,
        ``shapes`` and ``materials`` right of all objects, ``counts`` of all clips, ``words`` of all written ones, and
        ``words true`` of those read.
    """
    counts: dict[str, list[bool]] = {}

    def note(name: str, *right: bool) -> None:
        counts.setdefault(name, []).extend(right)

    for clip, row in pairs:
        blows = [(event["time"] * FPS, event["impact"]) for event in clip.events if event["kind"] == "contact"]
        starts = [event["time"] * FPS for event in clip.events if event["kind"] in ("contact", "roll", "slide")]
        times = [time for time, _ in blows]
        must = [time for time, impact in blows if impact >= SEEN and _RANGE[0] <= time <= _RANGE[1]]
        note("contacts found", *(_near(time, row["contacts"], 1.0) for time in must))
        note("contacts true", *(_near(time, times, 1.0) for time in row["contacts"]))
        loud = [time for time, impact in blows if impact >= HEARD and time <= FRAMES - 0.5]
        note("onsets found", *(_near(time, row["onsets"], _ONSET * FPS) for time in loud))
        note("onsets true", *(_near(time, starts, _ONSET * FPS) for time in row["onsets"]))
        objects = clip.meta["objects"]
        found = dict(named.split(" ", 1) for named in row["objects"])
        for thing in objects:
            material, shape = (found.get(thing["colour"]) or "- -").split(" ")
            note("colours", thing["colour"] in found)
            note("shapes", shape == thing["shape"])
            note("materials", material == thing["material"])
        note("counts", len(row["objects"]) == len(objects))
        sign = clip.meta["room"]["sign"]
        written = [word for word in (sign and sign["word"], *(thing["word"] for thing in objects)) if word]
        note("words", *(word in row["words"] for word in written))
        note("words true", *(word in written for word in row["words"]))
    return {name: Rate(sum(right), len(right)) for name, right in counts.items()}


def _near(time: float, others: Sequence[float], within: float) -> bool:
    return any(abs(time - other) <= within for other in others)
