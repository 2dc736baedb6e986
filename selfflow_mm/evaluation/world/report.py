"""The page of an evaluation: the table, and the clips that are worst and best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfflow_mm.data.reading import read_media
from selfflow_mm.evaluation.page import Card, Page, film_strip, spectrogram

from .measure import Row
from .summary import Table, as_cells

#: What a clip is ranked by.
_RIGHT = (
    *("colour", "shape", "material", "bound", "count", "word"),
    *("silent before", "consistent", "falls accelerate", "bounces lose energy"),
)
_SHOWN = 6


def write_report(
    folder: Path, name: str, table: Table, sets: Mapping[str, Sequence[Row]], files: Mapping[str, Path]
) -> Path:
    """Write ``report.html``; clips are shown of the sets whose folder is in ``files``."""
    page = Page("The bundled world, evaluated", f"`{name}`, by the media alone")
    header, lines = as_cells(table)
    page.table(lines, header)
    page.text(
        "Shares with Wilson's 95 % interval, contacts and means with that of a bootstrap over clips. Real clips are "
        "the ceiling: what the measures find where all is right. Shuffled sound and the untrained model are the floor."
    )
    for set_name, place in files.items():
        ranked = sorted(sets.get(set_name, ()), key=score)
        worst, best = ranked[:_SHOWN], ranked[::-1][:_SHOWN]
        for title, group in (("worst", worst), ("best", best)):
            if group:
                page.heading(f"{set_name}: {title}")
                page.cards([_card(place / row["key"], row) for row in group])
    page.save(folder / "report.html")
    return folder / "report.html"


def score(row: Row) -> float:
    """The share of what is measured in a clip that is right, from 0 to 1."""
    found = [float(row[key]) for key in _RIGHT if row.get(key) is not None]
    for part, whole in (("matched", "contacts"), ("explained", "onsets")):
        if row[whole]:
            found.append(row[part] / len(row[whole]))
    return sum(found) / max(1, len(found))


def _card(path: Path, row: Row) -> Card:
    clip = read_media(path)
    pictures = [film_strip(clip.video)] if clip.video is not None else []
    pictures += [spectrogram(clip.audio)] if clip.audio is not None else []
    wrong = [key for key in _RIGHT if row.get(key) is False]
    details: dict[str, Any] = {
        "clip": row["key"],
        "seen": ", ".join(row["objects"]) or "no object",
        "read": ", ".join(row["words"]) or "no word",
        "contacts (frames)": ", ".join(f"{time:.1f}" for time in row["contacts"]),
        "onsets (frames)": ", ".join(f"{time:.1f}" for time in row["onsets"]),
        "wrong": ", ".join(wrong) or "nothing",
    }
    return Card(row["caption"], path, "video", tuple(pictures), details)
