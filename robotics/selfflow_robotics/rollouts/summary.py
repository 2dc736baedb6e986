"""Success rates with the uncertainty that a number of episodes leaves, and two policies on the same episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.intervals import mean_with_interval, wilson

from .results import EpisodeResult
from .simulation import Job

__all__ = ["ALL", "Comparison", "TaskSummary", "compare", "compared", "mcnemar", "paired", "summarise"]

_Row = TypeVar("_Row", EpisodeResult, Job)

#: Name of the line over all tasks.
ALL = "all tasks"


class _Ended(Protocol):
    """An episode that succeeded or not."""

    @property
    def success(self) -> bool: ...


@dataclass(frozen=True)
class TaskSummary:
    """Of one task, or of all.

    Attributes:
        task: its name, or :data:`ALL`.
        episodes: n.
        successes: at the last step.
        share: of the episodes.
        low, high: 95 % Wilson interval of the share.
        successes_any: at any step.
        steps, queries: means per episode.
    """

    task: str
    episodes: int
    successes: int
    share: float
    low: float
    high: float
    successes_any: int
    steps: float
    queries: float


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same episodes of one task, or of all.

    Attributes:
        task: its name, or :data:`ALL`.
        episodes: that both acted.
        successes, other: of the first and of the second.
        only, only_other: episodes in which one of them alone succeeded.
        difference: of the shares, first minus second.
        low, high: its 95 % interval, a bootstrap over episodes; NaN where no episode came out differently, of which a
            bootstrap can tell nothing.
        p: of the exact McNemar test: how likely a split as uneven as ``only`` to ``only_other`` would be if both were
            equally good.
    """

    task: str
    episodes: int
    successes: int
    other: int
    only: int
    only_other: int
    difference: float
    low: float
    high: float
    p: float


def summarise(results: Sequence[EpisodeResult]) -> list[TaskSummary]:
    """A line per task, in the order of their first episodes, and one over all where there are several.

    The last counts every episode once; it is the mean of the tasks where they have equally many.
    """
    tasks = list(dict.fromkeys(row.task for row in results))
    lines = [_summary(task, [row for row in results if row.task == task]) for task in tasks]
    return [*lines, _summary(ALL, results)] if len(tasks) > 1 else lines


def compare(results: Sequence[EpisodeResult], others: Sequence[EpisodeResult]) -> list[Comparison]:
    """A line per task that both have, and one over all where there are several.

    Raises:
        UserError: no episode is in both, or one has another scene in the other (another seed).
    """
    pairs = paired(results, others)
    tasks = list(dict.fromkeys(one.task for one, _ in pairs))
    lines = [compared(task, [pair for pair in pairs if pair[0].task == task]) for task in tasks]
    return [*lines, compared(ALL, pairs)] if len(tasks) > 1 else lines


def paired(rows: Sequence[_Row], others: Sequence[EpisodeResult]) -> list[tuple[_Row, EpisodeResult]]:
    """The rows (results, or jobs still to be acted) of which there are others, each with its other.

    Raises:
        UserError: as :func:`compare`.
    """
    there = {(row.task, row.episode): row for row in others}
    pairs = [(row, there[row.task, row.episode]) for row in rows if (row.task, row.episode) in there]
    if not pairs:
        raise UserError("the two results have no episode in common, so there is nothing to compare")
    for one, two in pairs:
        if one.layout != two.layout:
            raise UserError(
                f"episode {one.episode} of '{one.task}' has another scene in the other results; "
                "compare runs of one seed"
            )
    return pairs


def compared(task: str, pairs: Sequence[tuple[_Ended, _Ended]]) -> Comparison:
    """One line of a comparison, of pairs of episodes that began alike."""
    only = sum(one.success and not two.success for one, two in pairs)
    only_other = sum(two.success and not one.success for one, two in pairs)
    mean = mean_with_interval(float(one.success) - float(two.success) for one, two in pairs)
    return Comparison(
        task=task,
        episodes=len(pairs),
        successes=sum(one.success for one, _ in pairs),
        other=sum(two.success for _, two in pairs),
        only=only,
        only_other=only_other,
        difference=mean.mean,
        low=mean.low if only + only_other else math.nan,
        high=mean.high if only + only_other else math.nan,
        p=mcnemar(only, only_other),
    )


def mcnemar(only: int, only_other: int) -> float:
    """p of the exact two-sided McNemar test (1947): a fair coin thrown for every episode that only one has done."""
    thrown, fewer = only + only_other, min(only, only_other)
    tail = sum(math.comb(thrown, heads) for heads in range(fewer + 1))
    return min(1.0, 2 * tail / 2**thrown)


def _summary(task: str, rows: Sequence[EpisodeResult]) -> TaskSummary:
    good = sum(row.success for row in rows)
    low, high = wilson(good, len(rows))
    return TaskSummary(
        task=task,
        episodes=len(rows),
        successes=good,
        share=good / len(rows),
        low=low,
        high=high,
        successes_any=sum(row.success_any for row in rows),
        steps=float(np.mean([row.steps for row in rows])),
        queries=float(np.mean([row.queries for row in rows])),
    )
