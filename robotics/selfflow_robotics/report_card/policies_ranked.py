"""Does imagination rank policies as the real environment does?

Every policy acts in imagination from the first pictures of the very episodes that it had in truth. A detector that
learned from true pictures tells success there; in truth the environment does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.intervals import wilson

from ..interfaces import ChunkPolicy, WorldModel
from ..policies import ActingOptions
from .films import Imagining
from .held_out import View
from .imagined_episodes import Ended, Judge, Start, imagine_episodes
from .ranking import Correlation, agreement, mmrv, pearson_interval, spearman_interval

if TYPE_CHECKING:
    from ..rollouts.results import EpisodeResult

__all__ = ["RANKED_TASKS", "Contestant", "rank_policies", "tabletop_starts"]

#: Tasks of one instruction, whose first picture and end a detector can learn. (``place_in_drawer`` has two.)
RANKED_TASKS = ("pick", "move_near", "open_drawer", "close_drawer")


@dataclass(frozen=True)
class Contestant:
    """A policy and what it did in truth.

    Attributes:
        name: unique among the contestants.
        policy: that acts.
        acting: how its chunks are used, in truth as in imagination.
        real: its real episodes.
        starts: where they began, one per real episode.
    """

    name: str
    policy: ChunkPolicy
    acting: ActingOptions
    real: tuple[EpisodeResult, ...]
    starts: tuple[Start, ...]


def tabletop_starts(results: Sequence[EpisodeResult], variant: Sequence[str] = ("base",)) -> list[Start]:
    """The first pictures of real episodes on the tabletop, drawn again: a scene is a function of task and layout."""
    from ..rollouts.simulation import Job
    from ..rollouts.tabletop import TabletopOptions, TabletopSimulation

    simulation = TabletopSimulation(TabletopOptions(variant=tuple(variant)))
    starts = []
    for result in results:
        seen = simulation.start(Job(result.task, result.episode, result.layout, seed=0)).observation
        assert seen is not None  # no episode is over before it began
        starts.append(Start(result.task, result.episode, result.layout, seen.image, seen.instruction))
    return starts


def rank_policies(
    model: WorldModel,
    view: View,
    contestants: Sequence[Contestant],
    judges: Mapping[str, Judge],
    *,
    how: Imagining,
    limit: int,
    progress: Callable[[str, int, int], None] = lambda what, done, planned: None,
) -> dict[str, Any]:
    """Imagine every contestant's episodes and compare the two ways of testing.

    Args:
        model, view: where policies act.
        contestants: at least two; episodes of tasks without a judge are left out.
        judges: task -> what tells success.
        how, limit: as in :func:`imagine_episodes`; a real success that took more than ``limit`` actions counts as
            none, as it could not have been imagined.
        progress: called as episodes end.

    Returns:
        Section ``policies_ranked`` as plain values.

    Raises:
        UserError: fewer than two contestants, one without an episode, or policies that cannot act in imagination.
    """
    if len(contestants) < 2:
        raise UserError("ranking needs two policies at least, and means little under five")
    policies: dict[str, Any] = {}
    real_all: list[bool] = []
    imagined_all: list[bool] = []
    for contestant in contestants:
        pairs = zip(contestant.real, contestant.starts, strict=True)
        judged = [(result, start) for result, start in pairs if result.task in judges]
        used = [result for result, _ in judged]
        if not used:
            raise UserError(f"{contestant.name} has no real episode of {', '.join(sorted(judges))} to be compared with")
        ended = imagine_episodes(
            model,
            view,
            contestant.policy,
            [start for _, start in judged],
            judges,
            how=how,
            acting=contestant.acting,
            limit=limit,
            progress=lambda done, planned, name=contestant.name: progress(f"{name} in imagination", done, planned),  # type: ignore[misc]
        )
        real = [result.success_any and result.steps <= limit for result in used]
        policies[contestant.name] = _of_policy(used, real, ended)
        real_all += real
        imagined_all += [one.success for one in ended]
    rates = {side: [policy[side] for policy in policies.values()] for side in ("real", "imagined")}
    pearson = pearson_interval(rates["real"], rates["imagined"], how.seed)
    return {
        "tasks": sorted(judges),
        "limit": limit,
        "policies": policies,
        "pearson": _plain(pearson),
        "spearman": _plain(spearman_interval(rates["real"], rates["imagined"], how.seed)),
        "mmrv": mmrv(rates["real"], rates["imagined"]),
        "agreement": _plain(agreement(real_all, imagined_all)) | {"episodes": len(real_all)},
        "verdict": _verdict(pearson),
    }


def _of_policy(used: Sequence[EpisodeResult], real: Sequence[bool], ended: Sequence[Ended]) -> dict[str, Any]:
    """Rates: the mean over tasks of each task's, so that a task with more episodes does not decide."""
    imagined = [one.success for one in ended]
    tasks: dict[str, Any] = {}
    for task in sorted({result.task for result in used}):
        chosen = [i for i, result in enumerate(used) if result.task == task]
        tasks[task] = {
            "episodes": len(chosen),
            "real": float(np.mean([real[i] for i in chosen])),
            "imagined": float(np.mean([imagined[i] for i in chosen])),
        }
    n = len(used)
    return {
        "episodes": n,
        "real": float(np.mean([task["real"] for task in tasks.values()])),
        "real_interval": wilson(sum(real), n),
        "imagined": float(np.mean([task["imagined"] for task in tasks.values()])),
        "imagined_interval": wilson(sum(imagined), n),
        "tasks": tasks,
        "agreement": _plain(agreement(real, imagined)),
    }


def _verdict(pearson: Correlation) -> str:
    if np.isnan(pearson.value):
        return "one side gives all policies the same rate: there is nothing to rank"
    if np.isnan(pearson.low):
        return f"r = {pearson.value:.2f} of {pearson.n} policies, too few for an interval: it says next to nothing"
    what = f"r = {pearson.value:.2f}, 95 % [{pearson.low:.2f}, {pearson.high:.2f}], of {pearson.n} policies"
    return f"{what}: {'better than chance' if pearson.low > 0 else 'not told apart from chance'}"


def _plain(found: Any) -> dict[str, Any]:
    """For JSON, which has no NaN: that becomes None."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(found).items()}
