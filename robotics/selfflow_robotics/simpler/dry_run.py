"""What a suite would be, before anything is started: episodes, steps, and how long they may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..look.tables import table
from .arrangements import Trial

__all__ = ["RATES", "Estimate", "as_text", "estimate"]

#: Control steps per second of one worker, and what that is a figure of.
RATES = {
    "simpler": (3.0, "SIMPLER's rasteriser on one CPU core, as measured in docs/results/simpler.md"),
    "ray tracing": (0.02, "ray tracing on one CPU core, as others report it; not measured here"),
    "tabletop": (200.0, "the tabletop on one CPU core"),
    "dream": (6.8, "tabletop-world on one CPU core beside other work"),
}


@dataclass(frozen=True)
class Estimate:
    """Of one task: how many variants, episodes and control steps at most, and of these by ray tracing."""

    task: str
    variants: int
    episodes: int
    limit: int
    steps: int
    traced: int


def estimate(trials: Sequence[Trial], shader: str = "rt") -> list[Estimate]:
    """A line per task, in the order of the trials."""
    lines = []
    for task in dict.fromkeys(trial.arrangement.task for trial in trials):
        some = [trial.arrangement for trial in trials if trial.arrangement.task == task]
        steps = sum(arrangement.limit for arrangement in some)
        traced = sum(arrangement.limit for arrangement in some if arrangement.ray_tracing and shader == "rt")
        lines.append(Estimate(task, len({a.variant for a in some}), len(some), some[0].limit, steps, traced))
    return lines


def as_text(
    lines: Sequence[Estimate],
    environment: Literal["simpler", "tabletop", "dream"],
    workers: int,
    measured: float | None,
) -> str:
    """Tables for a terminal.

    Args:
        lines: of :func:`estimate`.
        environment: that would act them.
        workers: at work at the same time.
        measured: control steps per second of one worker in what was acted before; None for the rates above.
    """
    rows = [(line.task, line.variants, line.episodes, line.limit, f"{line.steps:,}") for line in lines]
    total = ("all", "", sum(line.episodes for line in lines), "", f"{sum(line.steps for line in lines):,}")
    text = table([*rows, total], ("task", "variants", "episodes", "steps each", "steps at most"))
    return f"{text}\n{_time(lines, environment, max(1, workers), measured)}"


def _time(lines: Sequence[Estimate], environment: str, workers: int, measured: float | None) -> str:
    steps, traced = sum(line.steps for line in lines), sum(line.traced for line in lines)
    beside = "" if workers == 1 else f" with {workers} workers"
    if measured:
        span = _span(steps / measured / workers)
        return f"about {span}{beside}, at {measured:.3g} steps/s, as this folder's episodes had"
    if environment != "simpler":
        rate, where = RATES[environment]
        return f"about {_span(steps / rate / workers)}{beside}, at {rate:g} steps/s ({where})"
    rate, where = RATES["simpler"]
    text = f"about {_span((steps - traced) / rate / workers)}{beside}, at {rate:g} steps/s ({where})"
    if traced:
        slow, slowly = RATES["ray tracing"]
        text += f", and {_span(traced / slow / workers)} for {traced:,} steps at {slow:g} steps/s ({slowly})"
    return text


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 172800 else f"{seconds / 86400:.1f} days"
