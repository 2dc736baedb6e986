"""Our row beside published ones, and nothing that is not comparable."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from .published import REAL, SCOREBOARD, SIMULATED
from .results import SuiteRun
from .suites import trials
from .summary import PAPER, Group, Summary

__all__ = ["SCOREBOARD_HEADER", "official_episodes", "scoreboard", "task_table"]

SCOREBOARD_HEADER = ("policy", "mean", "95 % interval", "of", "source")
_THREE = ("pick_coke_can", "move_near", "open_drawer", "close_drawer")


@cache
def official_episodes(suite: str, tasks: tuple[str, ...]) -> int:
    """How many episodes the whole suite has of these tasks."""
    return len(trials(suite, tasks))


def scoreboard(run: SuiteRun, summary: Summary) -> list[tuple[Any, ...]]:
    """Rows of published means with ours among them, best first; none where ours is no such mean.

    Ours is the mean of three tasks in visual matching, or the paper's mean of four groups; where not all of the suite's
    episodes were acted, its name says ``n of N episodes``.
    """
    if run.settings["environment"] != "simpler":
        return []
    if (group := summary.group(PAPER)) is not None:
        means, groups, official = group.means, 4, len(trials("paper"))
    elif (group := summary.group("visual matching")) is not None:
        means = tuple(mean for mean in group.means if set(mean.tasks) == set(_THREE))
        groups, official = 3, official_episodes("google-visual-matching", _THREE)
    else:
        return []
    if not means:
        return []
    (mean,) = means
    name = _marked(run.name(), mean.episodes, official)
    ours = (name, mean.share, f"{mean.low:.1%} to {mean.high:.1%}", groups, "this run")
    rows = [(each.policy, each.share, "", each.groups, each.source) for each in SCOREBOARD] + [ours]
    rows.sort(key=lambda row: -row[1])
    of = {3: "3 tasks", 4: "the paper's 4 groups"}
    return [(name, f"{share:.1%}", interval, of[groups], source) for name, share, interval, groups, source in rows]


def task_table(run: SuiteRun, group: Group) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Our rates per task with SIMPLER's own, simulated and real, under them.

    Returns:
        Rows and their header; no rows where there is nothing to compare with.
    """
    suites = {"visual matching": "google-visual-matching", "WidowX": "widowx"}
    tasks = [line for line in group.tasks if line.task in SIMULATED]
    if run.settings["environment"] != "simpler" or group.name not in suites or not tasks:
        return [], ()
    names = tuple(line.task for line in tasks)
    official = official_episodes(suites[group.name], names)
    rows = [(_marked(run.name(), sum(line.episodes for line in tasks), official), "simulated", *_shown(tasks))]
    for policy in dict.fromkeys(policy for name in names for policy in SIMULATED[name]):
        for where, rates in (("simulated", SIMULATED), ("real robot", REAL)):
            rows.append((policy, where, *(f"{rates[name][policy]:.1%}" for name in names)))
    return rows, ("policy", "where", *names)


def _shown(lines: Sequence[Any]) -> list[str]:
    return [f"{line.share:.1%} ({line.low:.1%} to {line.high:.1%})" for line in lines]


def _marked(name: str, episodes: int, official: int) -> str:
    return f"{name} (this run)" if episodes == official else f"{name} (this run, {episodes} of {official} episodes)"
