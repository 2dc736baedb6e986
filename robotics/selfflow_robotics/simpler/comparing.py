"""Two evaluations, episode by episode: what one policy does on the very starts of another."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from selfflow_mm.errors import UserError

from ..look.tables import table
from ..rollouts.report import PAIRED_HEADER, flat, paired_rows, plain_text
from ..rollouts.summary import ALL, Comparison, compared
from .results import SuiteRun, TrialResult
from .summary import setting_of

__all__ = ["Difference", "SuiteComparison", "as_plain", "as_text", "compare", "differences", "identity"]


@dataclass(frozen=True)
class Difference:
    """A setting in which two evaluations differ: its dotted name, and both values; None where one has none."""

    setting: str
    one: Any
    other: Any


@dataclass(frozen=True)
class SuiteComparison:
    """Two evaluations on the episodes that both have.

    Attributes:
        lines: one per task (and setting, where there are several), and one over all where there are several.
        differences: of all settings but the policy.
        only_one, only_other: episodes that only one of them has; no part of the lines.
    """

    lines: tuple[Comparison, ...]
    differences: tuple[Difference, ...]
    only_one: int
    only_other: int


def identity(row: TrialResult) -> tuple[str, ...]:
    """What makes it the same episode in any suite: how the world is built and where it begins; not its number."""
    return (row.environment, row.task, row.variant, row.part, json.dumps(row.start, sort_keys=True), str(row.repeat))


def compare(one: SuiteRun, other: SuiteRun) -> SuiteComparison:
    """Counts, differences and p of two evaluations, see :class:`selfflow_robotics.rollouts.summary.Comparison`.

    Raises:
        UserError: no episode is in both, or one began with another seed of the environment in the other.
    """
    there = {identity(row): row for row in other.rows}
    pairs = [(row, there[identity(row)]) for row in one.rows if identity(row) in there]
    if not pairs:
        raise UserError(f"{one.folder} and {other.folder} have no episode in common, so there is nothing to compare")
    for row, twin in pairs:
        if row.environment_seed != twin.environment_seed:
            raise UserError(
                f"trial {row.number} ({row.task}) of {one.folder} began with another seed of the environment in "
                f"{other.folder}; compare evaluations of one suite with one --seed"
            )
    several = len({setting_of(row) for row, _ in pairs}) > 1
    named = [(f"{row.task}, {setting_of(row)}" if several else row.task, (row, twin)) for row, twin in pairs]
    names = list(dict.fromkeys(name for name, _ in named))
    lines = [compared(name, [pair for of, pair in named if of == name]) for name in names]
    if len(lines) > 1:
        lines.append(compared(ALL, pairs))
    return SuiteComparison(
        lines=tuple(lines),
        differences=differences(*(_without_policy(run.settings) for run in (one, other))),
        only_one=len(one.rows) - len(pairs),
        only_other=len(other.rows) - len(pairs),
    )


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Every setting that is not the same in both, in the order of the first."""
    ours, theirs = dict(flat(one)), dict(flat(other))
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return tuple(Difference(name, ours.get(name), theirs.get(name)) for name in names)


def as_text(comparison: SuiteComparison, one: SuiteRun, other: SuiteRun) -> str:
    """Tables."""
    blocks = [
        f"this:  {one.name()} ({one.folder})\nother: {other.name()} ({other.folder})",
        table(paired_rows(comparison.lines), PAIRED_HEADER),
    ]
    if comparison.only_one or comparison.only_other:
        blocks.append(f"left out: {comparison.only_one} episodes of this and {comparison.only_other} of other alone")
    if comparison.differences:
        rows = [(each.setting, plain_text(each.one), plain_text(each.other)) for each in comparison.differences]
        blocks.append("besides the policy they differ in\n" + table(rows, ("setting", "this", "other")))
    else:
        blocks.append("all settings but the policy are the same")
    return "\n\n".join(blocks)


def as_plain(comparison: SuiteComparison) -> dict[str, Any]:
    """For JSON, which has no NaN: that becomes None."""
    plain = asdict(comparison)
    plain["lines"] = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in line.items()}
        for line in plain["lines"]
    ]
    return plain


def _without_policy(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "policy"}
