"""Many episodes at once, and one call of the policy for all that wait for it.

Episodes take turns in two groups: while the policy thinks for one, the other's worlds move. Which questions come
together in a call depends on the episodes alone and not on timing or on the number of processes, so a result can be had
again bit for bit even from a network whose last digits change with the size of its batch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy
from ..policies import ActingOptions, Policy
from .simulation import Job, Moment, Simulation
from .team import Team

__all__ = ["Finished", "act_out", "check_sizes"]


@dataclass(frozen=True, eq=False)
class Finished:
    """An episode that is over.

    Attributes:
        job: which it was.
        moment: its last one.
        queries: how many chunks were asked for.
        seconds: of wall time from start to end, other episodes going on beside it.
        frames: T + 1 pictures as JPEG files where it was filmed.
        actions: ``(T, D)`` that were carried out.
    """

    job: Job
    moment: Moment
    queries: int
    seconds: float
    frames: tuple[bytes, ...]
    actions: np.ndarray


@dataclass(eq=False)
class _Live:
    """A simulation's number, and the episode that is going on in it."""

    number: int
    policy: Policy
    job: Job | None = None
    began: float = 0.0
    queries: int = 0
    sent: np.ndarray | None = None
    frames: list[bytes] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)

    def begin(self, job: Job) -> None:
        self.job, self.began, self.queries, self.sent = job, time.perf_counter(), 0, None
        self.frames, self.actions = [], []
        self.policy.reset(job.seed)

    def took(self, moment: Moment) -> None:
        self.frames += moment.frames
        if self.sent is not None:
            self.actions.append(self.sent[: moment.steps - sum(map(len, self.actions))])

    def finished(self, moment: Moment) -> Finished:
        assert self.job is not None
        width = len(self.policy.about.action_names)
        actions = np.concatenate([np.zeros((0, width), np.float32), *self.actions])
        seconds = time.perf_counter() - self.began
        return Finished(self.job, moment, self.queries, seconds, tuple(self.frames), actions)


def check_sizes(batch: int, workers: int) -> None:
    """UserError where :func:`act_out` does not take them; for who wants to know before anything is written."""
    if batch < 1 or workers < 0:
        raise UserError(f"a batch is at least 1 and workers at least 0, got {batch} and {workers}")


def act_out(
    policy: ChunkPolicy,
    jobs: Iterable[Job],
    make: Callable[[], Simulation],
    *,
    acting: ActingOptions = ActingOptions(),  # noqa: B008 - frozen
    batch: int = 16,
    workers: int = 0,
) -> Iterator[Finished]:
    """Act every job's episode.

    Args:
        policy: asked in this process.
        jobs: in the order in which they begin.
        make: a new simulation; picklable where there are workers.
        acting: how chunks are used; every episode has a ``Policy`` of its own, with its job's seed.
        batch: most questions in one call of the policy; twice as many simulations are there.
        workers: processes for the simulations; 0 is this one.

    Yields:
        Episodes in the order in which they end, the same for any number of workers.

    Raises:
        UserError: a batch or number of workers out of range, a policy that does not fit ``acting``, what the policy or
            a simulation refuses, or a process that died.
    """
    check_sizes(batch, workers)
    waiting = deque(jobs)
    count = min(2 * batch, len(waiting))
    everyone = [_Live(number, Policy(policy, acting)) for number in range(count)]
    groups = [everyone[0::2], everyone[1::2]]
    with Team(make, _homes(count, workers) if workers else None) as team:
        for live in everyone:
            _begin(live, waiting.popleft(), team)
        while any(groups):
            for group in groups:
                yield from _turn(policy, group, waiting, team)


def _homes(count: int, workers: int) -> list[int]:
    """The process of each simulation, such that all of them and those of each group are shared evenly."""
    first = (count + 1) // 2
    return [(number // 2 + number % 2 * first) % workers for number in range(count)]


def _begin(live: _Live, job: Job, team: Team) -> None:
    live.begin(job)
    team.send(live.number, job)


def _turn(policy: ChunkPolicy, group: list[_Live], waiting: deque[Job], team: Team) -> list[Finished]:
    """Take what a group's simulations answer, end and begin episodes, and send the others on with one call."""
    asking, requests, ended = [], [], []
    for live in list(group):
        moment = team.receive(live.number)
        live.took(moment)
        if moment.observation is not None:
            asking.append(live)
            requests.append(live.policy.request(moment.observation))
            continue
        ended.append(live.finished(moment))
        if waiting:
            _begin(live, waiting.popleft(), team)
        else:
            group.remove(live)
    if asking:
        for live, chunk in zip(asking, policy.chunks(requests), strict=True):
            live.sent = live.policy.answer(chunk)[: live.policy.executed]
            live.queries += 1
            team.send(live.number, live.sent)
    return ended
