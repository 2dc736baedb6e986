"""Suites by name, and their trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from selfflow_mm.errors import UserError

from .arrangements import Trial, evenly, every_start
from .official import google_cameras, google_variant_aggregation, google_visual_matching, paper, widowx
from .tabletop_suites import tabletop, tabletop_variants

__all__ = ["SUITES", "TABLETOP_SUITES", "shard", "trials"]

#: Name -> its trials, in the order of the arrangements. The scripts of variant aggregation also turn the camera, which
#: SIMPLER's tables leave out: here that is a suite of its own, and no part of ``all``.
SUITES: dict[str, Callable[[], list[Trial]]] = {
    "google-visual-matching": lambda: every_start(google_visual_matching()),
    "google-variant-aggregation": lambda: every_start(google_variant_aggregation()),
    "google-cameras": lambda: every_start(google_cameras()),
    "widowx": lambda: every_start(widowx()),
    "paper": paper,
    "all": lambda: every_start(chain(google_visual_matching(), google_variant_aggregation(), widowx())),
}
#: The same of the tabletop, which is a test bed and not SIMPLER.
TABLETOP_SUITES: dict[str, Callable[[], list[Trial]]] = {
    "tabletop": lambda: every_start(tabletop()),
    "tabletop-variants": lambda: every_start(tabletop_variants()),
}


def trials(name: str, tasks: Sequence[str] = (), per_task: int = 0) -> list[Trial]:
    """The episodes of a suite, in the order of its arrangements.

    Args:
        name: of the suite.
        tasks: only these; all if none are named.
        per_task: at most so many of each task, evenly spread over its episodes; 0 for all. A trial keeps the number
            that it has in the whole suite.

    Raises:
        UserError: no such suite, or a task that it does not have.
    """
    known_suites = SUITES | TABLETOP_SUITES
    if name not in known_suites:
        raise UserError(f"there is no suite '{name}'; there are {', '.join(known_suites)}")
    every = known_suites[name]()
    known = list(dict.fromkeys(trial.arrangement.task for trial in every))
    if unknown := [task for task in tasks if task not in known]:
        raise UserError(f"suite '{name}' has no task '{unknown[0]}'; it has {', '.join(known)}")
    if per_task < 0:
        raise UserError(f"a number of trials is at least 1, or 0 for all of them; got {per_task}")
    chosen = []
    for task in tasks or known:
        of_task = [trial for trial in every if trial.arrangement.task == task]
        chosen += evenly(of_task, per_task) if per_task else of_task
    return sorted(chosen, key=lambda trial: trial.number)


def shard(every: Sequence[Trial], spec: str) -> list[Trial]:
    """The i-th of n parts, every n-th trial, so that all parts take about as long.

    Args:
        every: trials.
        spec: ``i/n``, i from 1 to n.

    Raises:
        UserError: not of that form.
    """
    try:
        part, of = map(int, spec.split("/"))
    except ValueError:
        raise UserError(f"a shard is said as i/n, such as 2/4, not '{spec}'") from None
    if not 1 <= part <= of:
        raise UserError(f"shards are numbered from 1 to their number, and this is {spec}")
    return list(every[part - 1 :: of])
