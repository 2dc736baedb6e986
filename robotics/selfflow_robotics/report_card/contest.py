"""From what a user names (policies, results, true data) to a ranking of policies on the tabletop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy, WorldModel
from ..policies import ActingOptions, load_policy
from ..rollouts import EpisodeResult, TabletopOptions, read_results, rollout
from ..sources import RobotFiles
from .films import Imagining
from .held_out import View
from .imagined_episodes import NoisyPolicy
from .policies_ranked import RANKED_TASKS, Contestant, rank_policies, tabletop_starts
from .success import SuccessDetector, task_of, train_detector
from .true_frames import true_episodes

__all__ = [
    "Contest",
    "Entrants",
    "NothingToJudge",
    "enter",
    "hold_contest",
    "open_policy",
    "train_judges",
    "usable_judges",
]

Progress = Callable[[str, int, int], None]
_LEARN_FROM, _MEASURE_WITH = 150, 60
#: Of held-out episodes, how many more must have their end recognised than are taken for done too early.
_USABLE = 0.5


@dataclass(frozen=True)
class Contest:
    """What is to be ranked, and how.

    Attributes:
        policies: as on the command line, see :func:`open_policy`.
        real: one ``results.jsonl`` of ``selfflow-mm rollout`` per policy, or none: then they act on the tabletop now.
        real_episodes: of each task, where they act now.
        tasks: that are ranked.
        limit: most actions of an episode, in truth and in imagination.
        executed: actions carried out of each chunk, where they act now; None for all.
        data: folder whose ``statistics.json`` gives ``random`` and ``mean`` their range.
    """

    policies: tuple[str, ...]
    real: tuple[Path, ...] = ()
    real_episodes: int = 20
    tasks: tuple[str, ...] = RANKED_TASKS
    limit: int = 40
    executed: int | None = None
    data: Path | None = None

    def __post_init__(self) -> None:
        if len(set(self.policies)) < max(2, len(self.policies)):
            raise UserError("ranking needs two policies at least, each named once")
        if self.real and len(self.real) != len(self.policies):
            raise UserError(
                f"{len(self.policies)} policies need as many files of real results, in the same order, "
                f"not {len(self.real)}"
            )
        for task in self.tasks:
            if task not in RANKED_TASKS:
                raise UserError(f"'{task}' cannot be judged from pictures; there are {', '.join(RANKED_TASKS)}")
        for name in ("real_episodes", "limit"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is at least 1, not {getattr(self, name)}")


class NothingToJudge(UserError):
    """No task's success can be told from the pictures that there are."""


@dataclass(frozen=True)
class Entrants:
    """What a contest names, opened: ``policies`` by name, and ``real``: settings and results of each, or none."""

    policies: dict[str, ChunkPolicy]
    real: tuple[tuple[dict[str, Any], list[EpisodeResult]], ...]


def enter(contest: Contest, model: WorldModel) -> Entrants:
    """Open policies and results; it takes seconds, so it comes before anything that takes hours.

    Raises:
        UserError: no such policy or results, a policy that needs a state, results of other tasks than the others', or
            results that do not tell within how many actions an aim was reached.
    """
    policies = {name: open_policy(name, model, contest.data) for name in contest.policies}
    for name, policy in policies.items():
        if policy.about.needs_state:
            raise UserError(f"the policy {name} needs the robot's state, which nobody knows in imagination")
    real = tuple(read_results(path) for path in contest.real)
    tasks = [{result.task for result in results} & set(contest.tasks) for _, results in real]
    for path, (settings, results), found in zip(contest.real, real, tasks, strict=True):
        if found != tasks[0]:
            raise UserError(
                f"{path} holds {', '.join(sorted(found)) or 'none of the tasks'} and {contest.real[0]} "
                f"{', '.join(sorted(tasks[0])) or 'none of the tasks'}; rates of other tasks cannot be ranked beside "
                "each other, so name those that all policies have with --tasks"
            )
        goes_on = settings.get("tabletop", {}).get("until") == "limit"
        if goes_on and any(result.steps > contest.limit for result in results):
            raise UserError(
                f"{path} was made with --until limit, so it does not tell whether an aim was reached within "
                f"{contest.limit} actions; roll out with --until success, or allow more with --max-actions"
            )
    return Entrants(policies, real)


def open_policy(name: str, model: WorldModel, data: Path | None = None) -> ChunkPolicy:
    """``random``, ``zero``, ``mean``, the folder of a trained policy, or ``noisy:POLICY:X``: one of these with noise of
    X times half the range of the world model's actions.

    Raises:
        UserError: no such policy, no statistics where they are needed, or no number.
    """
    if name.startswith("noisy:"):
        inner, colon, amount = name.removeprefix("noisy:").rpartition(":")
        try:
            share = float(amount)
        except ValueError:
            share = math.nan
        if not colon or not math.isfinite(share):
            raise UserError(f"'{name}': a noisy policy is named noisy:POLICY:X, such as noisy:runs/bot:0.5")
        about = model.about
        return NoisyPolicy(open_policy(inner, model, data), share, about.action_low, about.action_high)
    if name in ("random", "mean"):
        return load_policy(name, statistics=data)
    return load_policy(name)


def hold_contest(
    contest: Contest,
    model: WorldModel,
    view: View,
    true_source: RobotFiles,
    held_out: RobotFiles,
    how: Imagining,
    progress: Progress = lambda what, done, planned: None,
    entrants: Entrants | None = None,
) -> dict[str, Any]:
    """Section ``policies_ranked`` of the card.

    Tasks whose detector does not do well enough on held-out true episodes are left out, and the section says so.

    Args:
        contest: what is ranked.
        model, view: where policies act in imagination.
        true_source: detectors of success learn from its pictures.
        held_out: and are measured with its.
        how: how the model is asked; its seed is also that of the real episodes.
        progress: called as work goes on.
        entrants: what :func:`enter` gave, where it was called before.

    Raises:
        NothingToJudge: no detector does well enough, or there are too few true episodes to train one.
        UserError: whatever a user can have named wrongly.
    """
    entrants = entrants or enter(contest, model)
    policies, real = entrants.policies, entrants.real
    known = {result.task for _, results in real for result in results} if real else set(contest.tasks)
    judges = train_judges(
        [task for task in contest.tasks if task in known], true_source, held_out, view, how.seed, progress
    )
    usable = usable_judges(judges)
    contestants = []
    for place, (name, policy) in enumerate(policies.items()):
        if real:
            settings, results = real[place]
            acting = ActingOptions(**settings.get("acting", {}))
            variant = tuple(settings.get("tabletop", {}).get("variant", ("base",)))
        else:
            acting, variant = ActingOptions(executed=contest.executed, seed=how.seed), ("base",)
            results = _act_now(contest, tuple(usable), name, policy, acting, how, progress)
        used = [result for result in results if result.task in usable]
        contestants.append(Contestant(name, policy, acting, tuple(used), tuple(tabletop_starts(used, variant))))
    ranked = rank_policies(model, view, contestants, usable, how=how, limit=contest.limit, progress=progress)
    detectors = {task: judge.accuracy | {"usable": task in usable} for task, judge in judges.items()}
    return ranked | {"tasks_left_out": sorted(known - set(usable)), "detectors": detectors}


def train_judges(
    tasks: Sequence[str], true_source: RobotFiles, held_out: RobotFiles, view: View, seed: int, progress: Progress
) -> dict[str, SuccessDetector]:
    """A detector of success for each task; arguments as in :func:`hold_contest`.

    Raises:
        NothingToJudge: too few true episodes of a task.
    """
    return {task: _detector(task, true_source, held_out, view, seed, progress) for task in tasks}


def usable_judges(judges: Mapping[str, SuccessDetector]) -> dict[str, SuccessDetector]:
    """Those that do well enough on held-out true episodes.

    Raises:
        NothingToJudge: none does.
    """
    usable = {task: judge for task, judge in judges.items() if _usable(judge)}
    if not usable:
        found = "; ".join(f"{task}: {_worth(judge)}" for task, judge in judges.items())
        raise NothingToJudge(
            "no task can be judged from pictures, so nothing can be told of policies; on held-out true episodes the "
            f"detectors of success are worth this: {found or 'the results hold none of the tasks'}"
        )
    return usable


def _usable(judge: SuccessDetector) -> bool:
    found = judge.accuracy
    return found["ends_recognised"] - found["episodes_taken_for_done_too_early"] >= _USABLE


def _worth(judge: SuccessDetector) -> str:
    found = judge.accuracy
    early = found["episodes_taken_for_done_too_early"]
    return f"{found['ends_recognised']:.0%} of the ends recognised, {early:.0%} taken for done too early"


def _act_now(
    contest: Contest,
    tasks: tuple[str, ...],
    name: str,
    policy: ChunkPolicy,
    acting: ActingOptions,
    how: Imagining,
    progress: Progress,
) -> list[EpisodeResult]:
    planned, done = contest.real_episodes * len(tasks), 0

    def one_more(result: EpisodeResult) -> None:
        nonlocal done
        done += 1
        progress(f"{name} on the tabletop", done, planned)

    return rollout(
        policy,
        tasks,
        contest.real_episodes,
        seed=how.seed,
        batch=how.batch,
        acting=acting,
        tabletop=TabletopOptions(max_steps=contest.limit),
        progress=one_more,
    )


def _detector(
    task: str, true_source: RobotFiles, held_out: RobotFiles, view: View, seed: int, progress: Progress
) -> SuccessDetector:
    tests = true_episodes(
        held_out, _MEASURE_WITH, seed=seed, view=view, wanted=lambda episode: task_of(episode.instruction) == task
    )
    episodes = true_episodes(
        true_source,
        _LEARN_FROM,
        seed=seed,
        view=view,
        without={episode.id for episode in tests},
        wanted=lambda episode: task_of(episode.instruction) == task,
        progress=lambda done, planned: progress(f"true episodes of {task}", done, planned),
    )
    try:
        return train_detector(
            task,
            episodes,
            tests,
            seed=seed,
            progress=lambda done, planned: progress(f"training the detector of {task}", done, planned),
        )
    except UserError as error:
        raise NothingToJudge(f"{error}; name tasks that the data have with --tasks") from error
