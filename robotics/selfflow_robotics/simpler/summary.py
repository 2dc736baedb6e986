"""Success rates of a suite: per task, per variant, and the means that publications give, each under its full name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from selfflow_mm.evaluation.intervals import mover, wilson

from .results import TrialResult
from .suites import SUITES, TABLETOP_SUITES

__all__ = ["MEANS", "PAPER", "Group", "Line", "MeanLine", "Summary", "TaskMean", "setting_of", "summarise"]

#: Name of the group of the paper's suite.
PAPER = "the paper's four groups"
_DRAWERS = ("open_drawer", "close_drawer")


@dataclass(frozen=True)
class TaskMean:
    """Which tasks a published mean is of.

    Attributes:
        name: what it is called, its tasks named.
        parts: each counts the same, and within one each of its tasks.
    """

    name: str
    parts: tuple[tuple[str, ...], ...]

    def weights(self) -> dict[str, float]:
        """Task -> its weight; they add up to 1."""
        return {task: 1 / len(self.parts) / len(part) for part in self.parts for task in part}


def _mean_of(*parts: str | tuple[str, ...], what: str = "tasks") -> TaskMean:
    names = ["drawers" if part == _DRAWERS else str(part) for part in parts]
    own = tuple((part,) if isinstance(part, str) else part for part in parts)
    return TaskMean(f"mean of {len(parts)} {what} ({', '.join(names)})", own)


#: Every mean that is given where all of its tasks have episodes. The Google robot's with three tasks is the one that
#: most publications call the average of visual matching.
MEANS = (
    TaskMean("drawers (mean of open_drawer and close_drawer)", (_DRAWERS,)),
    _mean_of("pick_coke_can", "move_near", _DRAWERS),
    _mean_of("pick_coke_can", "move_near", _DRAWERS, "place_apple_in_closed_top_drawer"),
    _mean_of("spoon_on_towel", "carrot_on_plate", "stack_cube", "put_eggplant_in_basket"),
    _mean_of("pick", "move_near", *_DRAWERS, "place_in_drawer"),
)
_PAPER_MEAN = _mean_of("pick_coke_can", "drawers", "move_near", "place_apple_in_closed_top_drawer", what="groups")


@dataclass(frozen=True)
class Line:
    """Episodes of one task, in one variant or in all.

    Attributes:
        task: its name.
        variant: its name; "" for all of them.
        episodes: n.
        successes: at the last step, the official count.
        share: of the episodes.
        low, high: 95 % Wilson interval of the share. Repeats of a start count as episodes of their own, so it is too
            narrow where a policy does the same again.
        successes_any: at any step.
        steps: mean per episode.
    """

    task: str
    variant: str
    episodes: int
    successes: int
    share: float
    low: float
    high: float
    successes_any: int
    steps: float


@dataclass(frozen=True)
class MeanLine:
    """A mean over tasks.

    Attributes:
        name: with the tasks that it is of.
        tasks: these.
        episodes: n, of all of them.
        share: the mean of the tasks' shares, weighted as :class:`TaskMean` says.
        low, high: its 95 % interval (:func:`selfflow_mm.evaluation.intervals.mover` of the tasks' Wilson intervals).
    """

    name: str
    tasks: tuple[str, ...]
    episodes: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Episodes of one setting, such as visual matching.

    Attributes:
        name: of the setting, or :data:`PAPER`.
        tasks: a line each, in the order of the suite.
        variants: a line for each task and variant.
        means: of which all tasks have episodes.
    """

    name: str
    tasks: tuple[Line, ...]
    variants: tuple[Line, ...]
    means: tuple[MeanLine, ...]


@dataclass(frozen=True)
class Summary:
    """Of a suite: its settings never share a rate."""

    groups: tuple[Group, ...]

    def group(self, name: str) -> Group | None:
        """The group of that name, if the suite has one."""
        return next((group for group in self.groups if group.name == name), None)


def summarise(rows: Sequence[TrialResult], suite: str = "") -> Summary:
    """Rates of all that was acted, grouped by setting.

    Args:
        rows: episodes, in the order of the suite.
        suite: its name; ``paper`` has one group, whose lines are the paper's (drawers to be opened and to be closed in
            one) and whose mean is the paper's.
    """
    if suite == "paper":
        return Summary((_paper(rows),) if rows else ())
    settings = list(dict.fromkeys(map(setting_of, rows)))
    return Summary(tuple(_group(name, [row for row in rows if setting_of(row) == name]) for name in settings))


def setting_of(row: TrialResult) -> str:
    """The setting of its arrangement (``Arrangement.setting``), looked up in all suites.

    An episode of no suite that is known here has its environment's id for a setting, so it is never added to others.
    """
    return _settings().get((row.environment, row.task, row.variant), row.environment)


@cache
def _settings() -> dict[tuple[str, str, str], str]:
    every = (trial.arrangement for make in (SUITES | TABLETOP_SUITES).values() for trial in make())
    return {(each.environment, each.task, each.variant): each.setting for each in every}


def _group(name: str, rows: Sequence[TrialResult]) -> Group:
    tasks = _lines({task: [row for row in rows if row.task == task] for task in dict.fromkeys(r.task for r in rows)})
    means = tuple(_mean(mean, tasks) for mean in MEANS if mean.weights().keys() <= tasks.keys())
    return Group(name, tuple(tasks.values()), _variants(rows), means)


def _paper(rows: Sequence[TrialResult]) -> Group:
    named = [("drawers" if row.task in _DRAWERS else row.task, row) for row in rows]
    lines = _lines({name: [row for of, row in named if of == name] for name in dict.fromkeys(of for of, _ in named)})
    means = (_mean(_PAPER_MEAN, lines),) if _PAPER_MEAN.weights().keys() <= lines.keys() else ()
    return Group(PAPER, tuple(lines.values()), _variants(rows), means)


def _lines(rows: Mapping[str, Sequence[TrialResult]]) -> dict[str, Line]:
    return {name: _line(name, "", some) for name, some in rows.items()}


def _variants(rows: Sequence[TrialResult]) -> tuple[Line, ...]:
    both = dict.fromkeys((row.task, row.variant) for row in rows)
    return tuple(
        _line(task, variant, [row for row in rows if (row.task, row.variant) == (task, variant)])
        for task, variant in both
    )


def _line(task: str, variant: str, rows: Sequence[TrialResult]) -> Line:
    good = sum(row.success for row in rows)
    low, high = wilson(good, len(rows))
    return Line(
        task=task,
        variant=variant,
        episodes=len(rows),
        successes=good,
        share=good / len(rows),
        low=low,
        high=high,
        successes_any=sum(row.success_any for row in rows),
        steps=float(np.mean([row.steps for row in rows])),
    )


def _mean(mean: TaskMean, lines: Mapping[str, Line]) -> MeanLine:
    weights = mean.weights()
    own = [lines[task] for task in weights]
    share, low, high = mover(
        [line.share for line in own], [(line.low, line.high) for line in own], list(weights.values())
    )
    return MeanLine(mean.name, tuple(weights), sum(line.episodes for line in own), share, low, high)
