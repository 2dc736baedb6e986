"""Rows of suites without a simulator: trials with outcomes that the test chooses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

from selfflow_robotics.interfaces import PolicyAbout
from selfflow_robotics.policies import ActingOptions
from selfflow_robotics.simpler import Trial, trials
from selfflow_robotics.simpler.conventions import PolicyConventions
from selfflow_robotics.simpler.results import PROVENANCE, RESULTS, SuiteRun, TrialResult, TrialsFile, described


def row(trial: Trial, success: bool = False, **changes: Any) -> TrialResult:
    """What an episode of a trial came to."""
    result = TrialResult(
        **described(trial),
        seed=trial.number + 7,
        environment_seed=trial.number,
        steps=trial.arrangement.limit,
        success=success,
        success_any=success,
        terminated=False,
        instructions=(f"do {trial.arrangement.task}",),
        queries=3,
        stats={"moved": success},
        video=None,
        seconds=1.5,
        simulator_seconds=1.0,
        attempts=1,
    )
    return replace(result, **changes)


def rows(found: Iterable[Trial], good: Callable[[int], bool] = lambda i: False, **changes: Any) -> list[TrialResult]:
    """Of several; ``good`` tells of the i-th whether it succeeded."""
    return [row(trial, good(i), **changes) for i, trial in enumerate(found)]


def settings(suite: str = "widowx", name: str = "toy", **changes: Any) -> dict[str, Any]:
    """The first line of ``results.jsonl``."""
    about = PolicyAbout(name, horizon=4, control_rate=5, extra={"weights": "abc"})
    own = {
        "environment": "tabletop" if suite.startswith("tabletop") else "simpler",
        "suite": suite,
        "seed": 0,
        "until": "limit",
        "policy": asdict(about),
        "acting": asdict(ActingOptions()),
        "conventions": PolicyConventions().to_dict(),
        "simulator": {"shader": "ibl"},
    }
    return own | changes


def write_run(
    folder: Path, results: Iterable[TrialResult], about: Mapping[str, Any] | None = None, shard: str | None = None
) -> SuiteRun:
    """A folder as ``selfflow-mm eval-simpler`` leaves it, with its provenance if ``shard`` is said."""
    folder.mkdir(parents=True, exist_ok=True)
    with mock.patch.object(os, "fsync"), TrialsFile(folder / RESULTS, settings() if about is None else about) as record:
        for result in results:
            record.add(result)
    if shard is not None:
        start = {"command": f"eval-simpler --shard {shard}", "shard": shard, "versions": {"numpy": "2"}}
        (folder / PROVENANCE).write_text(json.dumps({"runs": [start]}))
    return SuiteRun.load(folder)


def of_task(suite: str, task: str, count: int = 0) -> list[Trial]:
    """The first ``count`` trials of one task; 0 for all."""
    found = trials(suite, [task])
    return found[:count] if count else found
