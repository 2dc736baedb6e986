"""A run in its folder: what is done already is not done again, and nothing that ended is lost.

::

    results.jsonl      settings, then a row per episode, on the disk before the next one begins
    provenance.json    every start of the command: when, where, with which versions of both sides
    films/, first/     films, and every episode's first picture
    workers/           what workers printed
    log.txt            every worker that was lost, and why
    summary.json, report.html    made of the rows (:mod:`.report`)
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy
from ..policies import ActingOptions, Policy
from .arrangements import Trial
from .assets import with_differences
from .conventions import PolicyConventions
from .crew import Crew
from .films import FILMS, FIRST, filmed_numbers, write_film, write_first_picture
from .results import PROVENANCE, RESULTS, SuiteRun, TrialResult, TrialsFile, write_json
from .runner import GaveUp, RunOptions, act_trials, check_policy

__all__ = ["LOG", "WORKERS", "Outcome", "Setup", "forget", "run_suite"]

LOG, WORKERS, _LOCK = "log.txt", "workers", ".lock"
Environment = Literal["simpler", "tabletop", "dream"]


@dataclass(frozen=True)
class Setup:
    """What is evaluated, and how; all that a result depends on.

    Attributes:
        policy: that acts.
        suite: its name.
        trials: of the suite, those that are to be acted.
        conventions: of the policy's pictures and numbers.
        acting: how its chunks are used.
        options: how the suite is gone through.
        environment: ``simpler``, ``tabletop`` or ``dream``.
        simulator: plain values of the simulator's side that change results, such as the shader.
    """

    policy: ChunkPolicy
    suite: str
    trials: Sequence[Trial]
    conventions: PolicyConventions
    acting: ActingOptions = ActingOptions()
    options: RunOptions = RunOptions()
    environment: Environment = "simpler"
    simulator: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """As they stand in the first line of ``results.jsonl``."""
        executed = Policy(self.policy, self.acting).executed
        return {
            "environment": self.environment,
            "suite": self.suite,
            "seed": self.options.seed,
            "until": self.options.until,
            "policy": asdict(self.policy.about),
            "acting": asdict(replace(self.acting, executed=executed)),
            "conventions": self.conventions.to_dict(),
            "simulator": dict(self.simulator),
        }

    def check(self) -> None:
        """UserError where the policy cannot act these trials."""
        check_policy(self.policy, self.acting, self.conventions, self.trials, self.options)


@dataclass(frozen=True)
class Outcome:
    """What came of a run: the folder as it stands, and the trials that were given up."""

    run: SuiteRun
    lost: tuple[GaveUp, ...]


def run_suite(
    setup: Setup,
    crew: Crew,
    out: Path,
    *,
    films: int = 0,
    about_this: Mapping[str, Any] | None = None,
    progress: Callable[[TrialResult], None] = lambda result: None,
    on_loss: Callable[[str], None] = lambda what: None,
) -> Outcome:
    """Act what ``out`` does not have yet.

    Args:
        setup: what is evaluated.
        crew: workers.
        out: folder of the results; made, or gone on with.
        films: episodes of each task that are filmed.
        about_this: plain values for the record: the command, versions, the number of workers, the shard.
        progress: called with every new result.
        on_loss: called with a sentence whenever a worker is lost.

    Raises:
        UserError: the policy does not fit, the folder has other settings or is in use, workers cannot be kept up, or
            whatever the policy refuses. What has ended by then stays.
    """
    setup.check()
    lost: list[GaveUp] = []
    with _alone(out), TrialsFile(out / RESULTS, setup.settings()) as record:
        done = {row.number for row in record.done}
        todo = [trial for trial in setup.trials if trial.number not in done]
        note = _provenance(out, dict(about_this or {})) if todo else lambda simulator: None

        def lose(what: str) -> None:
            with open(out / LOG, "a", encoding="utf-8") as file:
                file.write(f"{_now()} {what}\n")
            on_loss(what)

        filmed = filmed_numbers(setup.trials, films)
        ended = act_trials(
            setup.policy, todo, crew, conventions=setup.conventions, acting=setup.acting, options=setup.options,
            filmed=filmed, on_hello=note, on_loss=lose,
        )  # fmt: skip
        for one in ended if todo else ():
            if isinstance(one, GaveUp):
                lost.append(one)
                lose(f"trial {one.trial.number} was given up: {one.reason}")
                continue
            write_first_picture(out, one)
            result = one.result
            if one.frames is not None:
                result = replace(result, video=write_film(out, one))
            record.add(result)
            progress(result)
    return Outcome(SuiteRun.load(out), tuple(lost))


def forget(out: Path) -> None:
    """Delete what a run wrote into a folder, and nothing else.

    Raises:
        UserError: another run is writing there.
    """
    if not out.exists():
        return
    with _alone(out):
        for folder, pattern in ((FILMS, "*-*.mp4"), (FIRST, "*.jpg"), (WORKERS, "worker-*.log")):
            for path in (out / folder).glob(pattern):
                path.unlink()
        for name in ("report.html", "summary.json", LOG, PROVENANCE, RESULTS):
            (out / name).unlink(missing_ok=True)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One run at a time in a folder; the lock is the process's and ends with it, however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = open(out / _LOCK, "w")
    except OSError as error:
        raise UserError(
            f"results cannot be written to {out} ({error.strerror}); name a folder that can be made"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another evaluation is writing to {out}; wait for it, or name another folder") from None
        yield


def _provenance(out: Path, about_this: dict[str, Any]) -> Callable[[Mapping[str, Any]], None]:
    """Note this start; gives what notes the simulator's side once a worker has told of it."""
    path = out / PROVENANCE
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    this = {"started": _now(), "host": platform.node(), "cores": os.cpu_count(), **about_this}
    runs.append(this)
    write_json(path, {"runs": runs})

    def note(simulator: Mapping[str, Any]) -> None:
        told = {"versions": simulator["versions"], "facts": with_differences(simulator["facts"])}
        if this.get("simulator") != told:  # all workers are of one installation
            this["simulator"] = told
            write_json(path, {"runs": runs})

    return note


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
