"""From rows of clips to a table: one line per measure, one column per set of clips, with n and 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from selfflow_mm.evaluation.intervals import mean_with_interval, wilson

from .measure import Row

_DRAWS = 2000


@dataclass(frozen=True)
class Value:
    """A measure over a set: ``value`` with ``low`` and ``high`` (95 %) over ``n`` clips, contacts or flights."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Measure:
    """A line of the table.

    Attributes:
        name: as shown.
        over: a set's rows to the value, None where nothing was measured.
        kind: ``share`` (shown in per cent) or ``number``.
        of_sound: it compares sound with picture, so it is what shuffled sound changes.
        aim: what a good model reaches, in per cent.
    """

    name: str
    over: Callable[[Sequence[Row]], Value | None]
    kind: str = "share"
    of_sound: bool = False
    aim: int | None = None


def _share(key: str) -> Callable[[Sequence[Row]], Value | None]:
    """Of the clips in which it is measured, those in which it holds; Wilson's interval."""

    def over(rows: Sequence[Row]) -> Value | None:
        found = [bool(row[key]) for row in rows if row.get(key) is not None]
        return Value(sum(found) / len(found), *wilson(sum(found), len(found)), len(found)) if found else None

    return over


def _none(key: str) -> Callable[[Sequence[Row]], Value | None]:
    """Clips in which something happens to no object."""
    over = _share("it")
    return lambda rows: over([{"it": row[key] == 0} for row in rows if key in row])


def _ratio(part: str, whole: str) -> Callable[[Sequence[Row]], Value | None]:
    """Of all contacts (onsets) those matched; bootstrap over clips, as those of one clip are not independent."""

    def over(rows: Sequence[Row]) -> Value | None:
        pairs = np.array([(row[part], len(row[whole])) for row in rows if part in row], dtype=np.float64).reshape(-1, 2)
        total = int(pairs[:, 1].sum()) if len(pairs) else 0
        if not total:
            return None
        draws = np.random.default_rng(0).integers(0, len(pairs), (_DRAWS, len(pairs)))
        sums = pairs[draws].sum(axis=1)
        low, high = np.quantile(sums[:, 0] / np.maximum(sums[:, 1], 1), (0.025, 0.975))
        return Value(float(pairs[:, 0].sum() / total), float(low), float(high), total)

    return over


def _mean(key: str, change: Callable[[float], float] = float) -> Callable[[Sequence[Row]], Value | None]:
    """The mean of a number, or of all numbers of lists; bootstrap."""

    def over(rows: Sequence[Row]) -> Value | None:
        values = [row[key] for row in rows if row.get(key) is not None]
        flat = [change(v) for value in values for v in (value if isinstance(value, list) else [value])]
        found = mean_with_interval(flat)
        return Value(found.mean, found.low, found.high, found.n) if found.n else None

    return over


MEASURES: tuple[Measure, ...] = (
    Measure("colours right", _share("colour"), aim=95),
    Measure("shapes right", _share("shape"), aim=90),
    Measure("materials right, by look", _share("material")),
    Measure("colour, shape and material on one object", _share("bound")),
    Measure("count right", _share("count"), aim=90),
    Measure("words right", _share("word"), aim=60),
    Measure("contacts heard within one frame", _ratio("matched", "contacts"), of_sound=True, aim=90),
    Measure("onsets seen within one frame", _ratio("explained", "onsets"), of_sound=True),
    Measure("sound late by, frames (absolute)", _mean("offset", abs), kind="number", of_sound=True),
    Measure("silent before the first contact", _share("silent before"), of_sound=False),
    Measure("no object vanishes", _none("vanished"), aim=95),
    Measure("no object changes colour", _none("recoloured")),
    Measure("no object changes size", _none("unsteady")),
    Measure("no object changes shape", _none("reshaped")),
    Measure("consistent in all of these", _share("consistent")),
    Measure("falls accelerate", _share("falls accelerate")),
    Measure("acceleration of falls, world's = 1", _mean("falls"), kind="number"),
    Measure("bounces lose energy", _share("bounces lose energy")),
    Measure("contacts seen a clip", _mean("contacts count"), kind="number"),
    Measure("distance to the nearest training clip, picture", _mean("nearest picture"), kind="number"),
    Measure("distance to the nearest training clip, sound", _mean("nearest sound"), kind="number"),
)

#: Set name -> measure name -> value.
Table = dict[str, dict[str, Value | None]]


def summarise(sets: Mapping[str, Sequence[Row]]) -> Table:
    """All measures of all sets; of "shuffled ..." and "sound for ..." only those that compare sound with picture."""
    return {
        name: {
            measure.name: measure.over([row | {"contacts count": len(row["contacts"])} for row in rows])
            for measure in MEASURES
            if measure.of_sound or not name.startswith(("shuffled", "sound for"))
        }
        for name, rows in sets.items()
    }


def as_json(table: Table) -> dict[str, dict[str, dict[str, Any] | None]]:
    """The table for ``summary.json``; NaN becomes null."""
    return {
        name: {
            measure: None if value is None else {k: None if v != v else v for k, v in asdict(value).items()}
            for measure, value in column.items()
        }
        for name, column in table.items()
    }


def as_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and lines of text."""
    header = ["", "aim", *table]
    lines = [
        [
            m.name,
            "" if m.aim is None else f"{m.aim} %",
            *(_cell(column.get(m.name), m.kind) for column in table.values()),
        ]
        for m in MEASURES
    ]
    return header, [line for line in lines if any(line[2:])]


def as_text(table: Table) -> str:
    """The table with aligned columns."""
    header, lines = as_cells(table)
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *lines]
    )


def _cell(value: Value | None, kind: str) -> str:
    if value is None:
        return ""
    numbers = (value.value, value.low, value.high)
    if kind == "share":
        middle, low, high = (f"{100 * v:.0f}" if not math.isnan(v) else "-" for v in numbers)
        return f"{middle} % ({low}-{high}), n {value.n}"
    middle, low, high = (f"{v:.3g}" if not math.isnan(v) else "-" for v in numbers)
    return f"{middle} ({low} to {high}), n {value.n}"
