"""A rollout's results for a terminal, for machines and as a page."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfflow_mm.evaluation.page import Card, Page

from ..look.tables import table
from .film import Film, outcome
from .results import FORMAT, VERSION, EpisodeResult
from .summary import Comparison, TaskSummary

__all__ = ["PAIRED_HEADER", "as_text", "flat", "paired_rows", "plain_text", "write_page", "write_summary"]

_HEADER = ("task", "episodes", "successes", "share", "95 % interval", "at any step", "mean steps", "mean queries")
PAIRED_HEADER = (
    "task",
    "pairs",
    "this",
    "other",
    "only this",
    "only other",
    "difference",
    "95 % interval",
    "McNemar p",
)


def as_text(summary: Sequence[TaskSummary], comparison: Sequence[Comparison] = (), other: str = "") -> str:
    """Tables."""
    text = table(_rows(summary), _HEADER)
    if comparison:
        text += f"\n\nbeside {other}, on the same episodes:\n" + table(paired_rows(comparison), PAIRED_HEADER)
    return text


def write_summary(
    path: Path,
    settings: Mapping[str, Any],
    summary: Sequence[TaskSummary],
    comparison: Sequence[Comparison] = (),
    other: str = "",
) -> None:
    """``summary.json``: the settings, a line per task, and what it was compared with, if anything."""
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "settings": settings}
    content["tasks"] = [asdict(line) for line in summary]
    if comparison:
        lines = [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(line).items()}
            for line in comparison
        ]
        content["comparison"] = {"other": other, "tasks": lines}
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def write_page(
    path: Path,
    settings: Mapping[str, Any],
    results: Sequence[EpisodeResult],
    summary: Sequence[TaskSummary],
    comparison: Sequence[Comparison] = (),
    other: str = "",
    film: Film | None = None,
) -> None:
    """``report.html``: success by task, films with their outcomes, settings."""
    page = Page(
        f"Rollouts of {settings['policy']['name']}",
        "Closed-loop episodes on the tabletop, a test bed: success here says that a policy works, not that it is good.",
    )
    page.heading("Success")
    page.text("Intervals are Wilson's, at 95 %. `at any step` counts episodes whose aim was reached at some time.")
    page.table(_rows(summary), _HEADER)
    if comparison:
        page.heading("Comparison")
        page.text(
            f"On the same episodes as `{other}`. The difference's interval is a bootstrap over episodes; p is of the "
            "exact McNemar test."
        )
        page.table(paired_rows(comparison), PAIRED_HEADER)
    filmed = [(row, film.path(row.task, row.episode)) for row in results] if film else []
    cards = [
        Card(
            ", then ".join(row.instructions),
            media=place,
            details={
                "task": row.task,
                "episode": row.episode,
                "outcome": outcome(row.success, row.success_any, row.steps),
            },
        )
        for row, place in filmed
        if place.exists()
    ]
    if cards:
        page.heading("Films")
        page.cards(cards)
    page.heading("Settings")
    page.table([[name, plain_text(value)] for name, value in flat(settings)], ("setting", "value"))
    page.save(path)


def _rows(summary: Sequence[TaskSummary]) -> list[tuple[Any, ...]]:
    return [
        (
            line.task,
            line.episodes,
            line.successes,
            f"{line.share:.1%}",
            f"{line.low:.1%} to {line.high:.1%}",
            line.successes_any,
            f"{line.steps:.1f}",
            f"{line.queries:.1f}",
        )
        for line in summary
    ]


def paired_rows(comparison: Sequence[Comparison]) -> list[tuple[Any, ...]]:
    """A row per line, under :data:`PAIRED_HEADER`."""
    return [
        (
            line.task,
            line.episodes,
            line.successes,
            line.other,
            line.only,
            line.only_other,
            f"{line.difference:+.1%}",
            "" if math.isnan(line.low) else f"{line.low:+.1%} to {line.high:+.1%}",
            f"{line.p:.3g}",
        )
        for line in comparison
    ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as ``(dotted.name, value)``."""
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        full = f"{prefix}{name}"
        rows += flat(value, f"{full}.") if isinstance(value, Mapping) else [(full, value)]
    return rows


def plain_text(value: Any) -> str:
    """A setting's value for a reader."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
