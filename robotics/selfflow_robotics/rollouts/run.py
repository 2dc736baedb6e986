"""Closed-loop episodes on the tabletop."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy
from ..policies import ActingOptions, Policy
from ..policies.seeds import derived_seed
from .film import Film
from .loop import Finished, act_out, check_sizes
from .results import EpisodeResult, ResultsFile
from .simulation import Job
from .tabletop import TabletopOptions, TabletopSimulation, check_policy

__all__ = ["MAX_EPISODES", "jobs_of", "planned", "rollout", "settings_of"]

#: Of each task in one rollout: a number with a zero too many is refused and does not fill the memory.
MAX_EPISODES = 1_000_000


def rollout(
    policy: ChunkPolicy,
    tasks: str | Sequence[str],
    episodes: int | Sequence[int],
    *,
    seed: int = 0,
    workers: int = 0,
    batch: int = 16,
    acting: ActingOptions = ActingOptions(),  # noqa: B008 - frozen
    tabletop: TabletopOptions | None = None,
    results: Path | str | None = None,
    film: Film | None = None,
    progress: Callable[[EpisodeResult], None] = lambda result: None,
) -> list[EpisodeResult]:
    """Let a policy act, and tell how it went.

    Scene and policy noise of episode i are functions of (seed, i) and the task alone: not of ``workers``, ``batch``, or
    which other episodes there are. A network may answer a little differently in a batch of another size; then ``batch``
    matters too, and ``workers`` still does not.

    Args:
        policy: in the house's actions at 3 per second.
        tasks: of the tabletop.
        episodes: of each task: how many, counted from 0, or their numbers.
        seed: of scenes and policy noise.
        workers: processes that the environments live in; 0 is this one.
        batch: most observations in one call of the policy; twice as many environments are there.
        acting: how chunks are used; its ``seed`` changes the policy's noise alone.
        tabletop: how episodes go; ``TabletopOptions()`` unless given.
        results: file to which results are written as they come (:class:`ResultsFile`). Episodes that it has already are
            not acted again.
        film: which episodes to film, and where to; None films nothing.
        progress: called with every result that is new.

    Returns:
        One result per task and episode, in the order asked for, those from the file among them.

    Raises:
        UserError: an unknown task, a policy that does not fit the tabletop, a file with other settings, or whatever the
            policy refuses. What is in the file by then stays.
    """
    jobs = planned(policy, tasks, episodes, seed=seed, workers=workers, batch=batch, acting=acting)
    tabletop = tabletop or TabletopOptions()
    if film is not None:
        filmed = set(list(dict.fromkeys(job.episode for job in jobs))[: film.episodes])
        jobs = [replace(job, filmed=job.episode in filmed) for job in jobs]
    recording = nullcontext() if results is None else ResultsFile(results, settings_of(policy, seed, acting, tabletop))
    with recording as record:
        found = {(row.task, row.episode): row for row in record.done} if record else {}
        todo = [job for job in jobs if (job.task, job.episode) not in found]
        make = partial(TabletopSimulation, tabletop)
        for done in act_out(policy, todo, make, acting=acting, batch=batch, workers=workers):
            if film is not None and done.job.filmed:
                film.write(done)
            row = _result(done)
            found[row.task, row.episode] = row
            if record:
                record.add(row)
            progress(row)
    return [found[job.task, job.episode] for job in jobs]


def planned(
    policy: ChunkPolicy,
    tasks: str | Sequence[str],
    episodes: int | Sequence[int],
    *,
    seed: int = 0,
    workers: int = 0,
    batch: int = 16,
    acting: ActingOptions = ActingOptions(),  # noqa: B008 - frozen
) -> list[Job]:
    """What :func:`rollout` would act, once all that it is given is known to fit; nothing is written or acted.

    Raises:
        UserError: an unknown task, numbers out of range, or a policy that does not fit the tabletop or ``acting``.
    """
    if (episodes if isinstance(episodes, int) else len(episodes)) > MAX_EPISODES:
        raise UserError(f"a rollout has at most {MAX_EPISODES} episodes of each task")
    numbers = range(episodes) if isinstance(episodes, int) else episodes
    jobs = jobs_of([tasks] if isinstance(tasks, str) else tasks, numbers, seed, acting.seed)
    check_policy(policy.about)
    Policy(policy, acting)
    check_sizes(batch, workers)
    return jobs


def _result(done: Finished) -> EpisodeResult:
    return EpisodeResult(
        task=done.job.task,
        episode=done.job.episode,
        layout=done.job.layout,
        steps=done.moment.steps,
        success=done.moment.success,
        success_any=done.moment.success_any,
        instructions=done.moment.instructions,
        queries=done.queries,
        seconds=round(done.seconds, 3),
    )


def jobs_of(tasks: Sequence[str], episodes: Sequence[int], seed: int, acting_seed: int) -> list[Job]:
    """What :func:`rollout` acts: scenes that no recording has, since those are numbered by other hashes.

    Raises:
        UserError: an unknown task, one that is named twice, no episode, or numbers below 0.
    """
    from ..tabletop import ALL_TASKS

    for task in tasks:
        if task not in ALL_TASKS:
            raise UserError(f"the tabletop has no task '{task}'; there are {', '.join(ALL_TASKS)}")
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError(f"name at least one task, and each once; got {', '.join(tasks) or 'none'}")
    if not episodes or min(episodes) < 0 or len(set(episodes)) < len(episodes):
        raise UserError("at least one episode of each task is acted; episodes are numbered from 0, each once")
    if seed < 0:
        raise UserError(f"a seed is at least 0, got {seed}")
    return [
        Job(
            task,
            episode,
            layout=derived_seed("rollout layout", seed, episode),
            seed=derived_seed("rollout policy", acting_seed, seed, episode, zlib.crc32(task.encode())),
        )
        for task in tasks
        for episode in episodes
    ]


def settings_of(policy: ChunkPolicy, seed: int, acting: ActingOptions, tabletop: TabletopOptions) -> dict[str, Any]:
    """All that an episode's result depends on, as plain values."""
    executed = Policy(policy, acting).executed
    return {
        "policy": asdict(policy.about),
        "seed": seed,
        "acting": asdict(replace(acting, executed=executed)),
        "tabletop": asdict(tabletop),
    }
