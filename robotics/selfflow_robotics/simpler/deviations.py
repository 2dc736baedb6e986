"""In what a run is not the official evaluation, said in sentences that stand beside its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from .arrangements import Trial
from .assets import assets_of
from .results import SuiteRun
from .suites import trials

__all__ = ["deviations"]


def deviations(run: SuiteRun) -> list[str]:
    """Sentences; none for a complete official run."""
    settings = run.settings
    every = trials(settings["suite"])
    done = {row.number for row in run.rows}
    acted = [trial for trial in every if trial.number in done]
    found = [*_world(settings), *_missing(every, done)]
    if settings["suite"] == "paper":
        found.append(
            "the paper does not say which trials it took: these are spread evenly over those of visual matching"
        )
    if settings["environment"] == "simpler":
        found += _rendering(settings, acted)
        found += _other_assets(run, acted)
    if settings["until"] != "limit":
        found.append(
            "episodes ended at success; officially they go on to the limit, and what is true at the last step counts"
        )
    found += _rates(settings["policy"], acted)
    return found


def _world(settings: dict[str, Any]) -> list[str]:
    if settings["environment"] == "tabletop":
        return ["the tabletop is a test bed, not SIMPLER: success there says that a policy works, not that it is good"]
    if settings["environment"] == "dream":
        return ["episodes were imagined by a world model, and success is what a detector saw in its pictures"]
    return []


def _missing(every: Sequence[Trial], done: Collection[int]) -> list[str]:
    planned = Counter(trial.arrangement.task for trial in every)
    there = Counter(trial.arrangement.task for trial in every if trial.number in done)
    short = [f"{there[task]} of {planned[task]} of {task}" for task in planned if there[task] < planned[task]]
    return [f"not all episodes were acted: {', '.join(short)}"] if short else []


def _rendering(settings: dict[str, Any], acted: Sequence[Trial]) -> list[str]:
    shader = settings["simulator"].get("shader", "rt")
    traced = list(dict.fromkeys(trial.arrangement.task for trial in acted if trial.arrangement.ray_tracing))
    if shader == "rt" or not traced:
        return []
    return [f"trials of {', '.join(traced)} were rendered by the shader '{shader}' where ray tracing is official"]


def _other_assets(run: SuiteRun, acted: Sequence[Trial]) -> list[str]:
    facts = [note.get("simulator", {}).get("facts", {}) for note in run.provenance.get("runs", ())]
    needed = assets_of(acted)
    said = []
    for which, how in (("other_assets", "are not SIMPLER's own, by their hashes"), ("missing_assets", "are missing")):
        found = sorted({path for fact in facts for path in fact.get(which, ()) if path in needed})
        if found:
            said.append(f"files that these trials may draw {how}: {', '.join(found)}")
    return said


def _rates(policy: dict[str, Any], acted: Sequence[Trial]) -> list[str]:
    rates = sorted({trial.arrangement.control_rate for trial in acted} - {policy["control_rate"]})
    if not rates:
        return []
    said = " and ".join(f"{rate:g}" for rate in rates)
    return [f"the policy says that it gives {policy['control_rate']:g} actions per second, and acted at {said}"]
