"""A policy acts the trials of a suite: every worker has one at a time, all that wait are asked about together.

What an episode comes to is a function of the policy, the trial and the seeds, not of which worker acts it, what was
lost before, or what else goes on (a network may answer a little differently in a batch of another size; ``batch=1``
rules that out). So a trial whose worker is lost is begun again from its start, and nothing shows but the time it took.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy, Observation
from ..policies import ActingOptions, Policy
from ..policies.seeds import derived_seed
from .arrangements import Trial
from .conventions import Control, PolicyConventions
from .crew import Crew, Lost
from .results import TrialResult, described
from .states import check_state, state_of

__all__ = ["Acted", "GaveUp", "RunOptions", "act_trials"]


@dataclass(frozen=True)
class RunOptions:
    """How a suite is gone through.

    Attributes:
        seed: of environments and the policy's noise.
        until: ``limit`` goes on to the last step, as the official evaluator does; ``success`` ends an episode there.
        batch: most observations in one call of the policy.
        attempts: how often a trial is begun before it is given up, each time because its worker was lost.
        renew: episodes after which a worker is replaced by a new process; 0 for never.
        any_rate: let a policy act at another rate than its own, as those must that are made for several robots.
        house: workers take the house's actions as they are, not a robot's commands; world models do.

    Raises:
        UserError: a value out of range.
    """

    seed: int = 0
    until: Literal["limit", "success"] = "limit"
    batch: int = 16
    attempts: int = 3
    renew: int = 0
    any_rate: bool = False
    house: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UserError(f"a seed is at least 0, got {self.seed}")
        if self.until not in ("limit", "success"):
            raise UserError(f"an episode goes until 'limit' or 'success', not until '{self.until}'")
        if self.batch < 1 or self.attempts < 1 or self.renew < 0:
            raise UserError(
                "a batch and the attempts at a trial are at least 1, the episodes until a worker is renewed at least 0;"
                f" got {self.batch}, {self.attempts} and {self.renew}"
            )


@dataclass(frozen=True, eq=False)
class Acted:
    """An episode that is over.

    Attributes:
        trial: which it was.
        result: what it came to, without a video.
        first: ``(H, W, 3)`` uint8, what was seen before anything was done.
        frames: ``(T + 1, H, W, 3)`` uint8 where it was filmed, else None.
        actions: ``(T, 7)`` of the policy that were carried out, in the house's columns.
    """

    trial: Trial
    result: TrialResult
    first: np.ndarray
    frames: np.ndarray | None
    actions: np.ndarray


@dataclass(frozen=True)
class GaveUp:
    """A trial that was lost with its worker as often as it was begun, or that the worker refused; and why."""

    trial: Trial
    reason: str


@dataclass(eq=False)
class _Live:
    """A worker's episode."""

    trial: Trial
    policy: Policy
    control: Control
    began: float
    queries: int = 0
    simulator: float = 0.0
    sent: np.ndarray | None = None
    actions: list[np.ndarray] = field(default_factory=list)
    first: np.ndarray | None = None
    frames: list[np.ndarray] = field(default_factory=list)


def act_trials(
    policy: ChunkPolicy,
    trials: Iterable[Trial],
    crew: Crew,
    *,
    conventions: PolicyConventions,
    acting: ActingOptions = ActingOptions(),  # noqa: B008 - frozen
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    filmed: Collection[int] = (),
    on_hello: Callable[[Mapping[str, Any]], None] = lambda hello: None,
    on_loss: Callable[[str], None] = lambda what: None,
) -> Iterator[Acted | GaveUp]:
    """Act every trial.

    Args:
        policy: asked in this process.
        trials: in the order in which they begin.
        crew: that acts them; entered here.
        conventions: of the policy's pictures and numbers.
        acting: how its chunks are used; every episode has a seed of its own.
        options: how the suite is gone through.
        filmed: numbers of the trials of which every frame is wanted.
        on_hello: called with a worker's ``versions`` and ``facts`` whenever one comes up.
        on_loss: called with a sentence whenever one is lost.

    Yields:
        Episodes in the order in which they end.

    Raises:
        UserError: a policy that does not fit, whatever it refuses, or workers that cannot be kept up.
    """
    waiting = deque(trials)
    check_policy(policy, acting, conventions, waiting, options)
    busy: dict[int, _Live] = {}
    free: list[int] = []
    begun: Counter[int] = Counter()
    ended: Counter[int] = Counter()
    shaders: dict[int, bool] = {}
    with crew:
        while waiting or busy:
            asking: dict[int, Mapping[str, Any]] = {}
            for event in crew.wait():
                if isinstance(event, Lost):
                    free = [worker for worker in free if worker != event.worker]
                    ended[event.worker] = 0
                    shaders.pop(event.worker, None)
                    asking.pop(event.worker, None)
                    lost = busy.pop(event.worker, None)
                    on_loss(_sentence(event, lost))
                    if lost is not None and begun[lost.trial.number] >= options.attempts:
                        yield GaveUp(lost.trial, event.reason)
                    elif lost is not None:
                        waiting.appendleft(lost.trial)
                    continue
                if "hello" in event.message:
                    on_hello(event.message["hello"])
                    free.append(event.worker)
                    continue
                if "refused" in event.message:
                    yield GaveUp(busy.pop(event.worker).trial, event.message["refused"])
                    free.append(event.worker)
                    continue
                live = busy[event.worker]
                _took(live, event.message)
                if not event.message["over"]:
                    asking[event.worker] = event.message
                    continue
                yield _acted(busy.pop(event.worker), event.message, begun[live.trial.number], options.seed)
                ended[event.worker] += 1
                if options.renew and ended[event.worker] >= options.renew and waiting:
                    ended[event.worker] = 0
                    shaders.pop(event.worker, None)
                    crew.renew(event.worker)
                else:
                    free.append(event.worker)
            while free and waiting:
                worker = free.pop(0)
                # How SAPIEN renders holds for a whole process.
                if shaders.setdefault(worker, waiting[0].arrangement.ray_tracing) != waiting[0].arrangement.ray_tracing:
                    del shaders[worker]
                    crew.renew(worker)
                    continue
                trial = waiting.popleft()
                begun[trial.number] += 1
                busy[worker] = _begun(policy, trial, conventions, acting, options)
                crew.send(worker, {"start": start_message(trial, options, trial.number in filmed)})
            _ask(policy, crew, busy, asking, conventions, options.batch)


def check_policy(
    policy: ChunkPolicy,
    acting: ActingOptions,
    conventions: PolicyConventions,
    trials: Iterable[Trial],
    options: RunOptions,
) -> None:
    """Refuse what cannot act these trials before anything runs.

    Raises:
        UserError: other actions, another control rate, a state that is not told, or options that do not fit.
    """
    about = policy.about
    Policy(policy, acting)
    check_state(about)
    for trial in trials:
        _control(policy, conventions, trial, options)
        rate = trial.arrangement.control_rate
        if not options.any_rate and not np.isclose(about.control_rate, rate):
            raise UserError(
                f"{about.name} gives {about.control_rate:g} actions per second, and '{trial.arrangement.task}' takes "
                f"{rate:g}; a policy acts at the rate that it was trained for (--any-rate lets it act all the same)"
            )


def start_message(trial: Trial, options: RunOptions, filmed: bool) -> dict[str, Any]:
    """What a worker is told of a trial, as plain values; see :class:`selfflow_robotics.simpler.worker.SimplerWorld`."""
    arrangement, start = trial.arrangement, trial.start
    return {
        "task": arrangement.task,
        "environment": arrangement.environment,
        "scene": arrangement.scene,
        "overlay": arrangement.overlay,
        "options": dict(arrangement.options),
        "ray_tracing": arrangement.ray_tracing,
        "robot": arrangement.robot,
        "control_rate": arrangement.control_rate,
        "simulation_rate": arrangement.simulation_rate,
        "limit": arrangement.limit,
        "robot_xy": list(start.robot),
        "robot_quaternion": list(start.quaternion),
        "objects": None if start.objects is None else list(start.objects),
        "episode": start.episode,
        "number": trial.number,
        "seed": _environment_seed(options.seed, trial),
        "until": options.until,
        "filmed": filmed,
    }


def _environment_seed(seed: int, trial: Trial) -> int:
    return derived_seed("environment of a trial", seed, *_identity(trial)) % 2**31


def _policy_seed(seed: int, acting: ActingOptions, trial: Trial) -> int:
    return derived_seed("policy of a trial", acting.seed, seed, trial.repeat, *_identity(trial))


def _identity(trial: Trial) -> bytes:
    """Which episode it is in any suite; its number differs between them, and repeats begin alike."""
    about = described(trial)
    return json.dumps([about[name] for name in ("environment", "task", "variant", "part", "start")]).encode()


def _begun(
    policy: ChunkPolicy, trial: Trial, conventions: PolicyConventions, acting: ActingOptions, options: RunOptions
) -> _Live:
    own = Policy(policy, acting)
    own.reset(_policy_seed(options.seed, acting, trial))
    return _Live(trial, own, _control(policy, conventions, trial, options), time.perf_counter())


def _control(policy: ChunkPolicy, conventions: PolicyConventions, trial: Trial, options: RunOptions) -> Control:
    return Control(policy.about, conventions, "house" if options.house else trial.arrangement.robot)


def _took(live: _Live, moment: Mapping[str, Any]) -> None:
    live.simulator += moment["seconds"]
    if live.first is None:
        live.first = moment["image"]
    if "frames" in moment:
        live.frames.append(moment["frames"])
    if live.sent is not None:
        live.actions.append(live.sent[: moment["steps"] - sum(map(len, live.actions))])


def _ask(
    policy: ChunkPolicy,
    crew: Crew,
    busy: Mapping[int, _Live],
    asking: Mapping[int, Mapping[str, Any]],
    conventions: PolicyConventions,
    batch: int,
) -> None:
    """One call of the policy for at most ``batch`` workers at a time, and everyone is sent on."""
    workers = sorted(asking)
    for begin in range(0, len(workers), batch):
        some = workers[begin : begin + batch]
        requests = [busy[worker].policy.request(_observation(policy, asking[worker], conventions)) for worker in some]
        for worker, chunk in zip(some, policy.chunks(requests), strict=True):
            live = busy[worker]
            live.sent = live.policy.answer(chunk)[: live.policy.executed]
            live.queries += 1
            commands, terminate = live.control.commands(live.sent)
            message: dict[str, Any] = {"actions": commands}
            if terminate is not None:
                message["terminate"] = terminate
            crew.send(worker, message)


def _observation(policy: ChunkPolicy, moment: Mapping[str, Any], conventions: PolicyConventions) -> Observation:
    return Observation(conventions.picture(moment["image"]), moment["prompt"], state_of(policy.about, moment))


def _acted(live: _Live, moment: Mapping[str, Any], attempts: int, seed: int) -> Acted:
    width = len(live.policy.about.action_names)
    actions = np.concatenate([np.zeros((0, width), np.float32), *live.actions])
    result = TrialResult(
        **described(live.trial),
        seed=_policy_seed(seed, live.policy.options, live.trial),
        environment_seed=_environment_seed(seed, live.trial),
        steps=moment["steps"],
        success=moment["success"],
        success_any=moment["success_any"],
        terminated=moment["terminated"],
        instructions=tuple(moment["instructions"]),
        queries=live.queries,
        stats=moment["stats"],
        video=None,
        seconds=round(time.perf_counter() - live.began, 3),
        simulator_seconds=round(live.simulator, 3),
        attempts=attempts,
    )
    assert live.first is not None
    frames = np.concatenate(live.frames) if live.frames else None
    return Acted(live.trial, result, live.first, frames, actions[:, :7])


def _sentence(event: Lost, lost: _Live | None) -> str:
    what = "between episodes" if lost is None else f"during trial {lost.trial.number} ({lost.trial.arrangement.task})"
    return f"worker {event.worker} was lost {what}: {event.reason}"
