"""Has the task been done? A detector for each task, trained on true pictures only.

It sees an episode's first picture and a later one. Examples of success are the last pictures of successful episodes,
examples of the opposite are earlier ones. It has never seen a policy that does something else entirely, such as moving
the wrong object: what it says of such an episode is a guess, in dreams as in reality.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F

from selfflow_mm.errors import UserError
from selfflow_mm.evaluation.intervals import wilson

from ..policies.seeds import derived_seed
from .networks import Fitting, SmallNetwork, apply, fit, shrunk
from .true_frames import TrueEpisode

__all__ = ["TASK_OF_VERB", "SuccessDetector", "task_of", "train_detector"]

#: The tabletop's (and SIMPLER's) task by the instruction's first word.
TASK_OF_VERB = {
    "pick": "pick",
    "move": "move_near",
    "open": "open_drawer",
    "close": "close_drawer",
    "place": "place_in_drawer",
}
#: So many pictures at the end may show success: the last one surely, the one before it perhaps.
_UNCLEAR = 2
#: Earlier pictures of an episode that it learns from, half of them among the ``_LATE`` last of these: where the end is
#: hardest to tell (an object held, but not yet lifted).
_EARLY_PER_EPISODE, _LATE = 6, 5
#: Share of calibration episodes that may be taken for done too early; sets the threshold.
_FALSE_ALARMS = 0.05
_CALIBRATION = 0.25
_LEAST = 8


def task_of(instruction: str) -> str | None:
    """``"open top drawer"`` -> ``"open_drawer"``; None for a task that the tabletop does not have."""
    words = instruction.split()
    return TASK_OF_VERB.get(words[0]) if words else None


@dataclass(frozen=True)
class SuccessDetector:
    """Pictures of one task -> done or not.

    Attributes:
        task: its name.
        network: first and later picture -> log-odds of success.
        threshold: log-odds from which on a picture counts as success.
        accuracy: measured on held-out true episodes, as plain values.
    """

    task: str
    network: SmallNetwork
    threshold: float
    accuracy: dict[str, Any]

    def done(self, first: np.ndarray, later: np.ndarray) -> np.ndarray:
        """``(T,)`` bool for pictures ``later (T, H, W, 3)`` of an episode that began with ``first (H, W, 3)``."""
        pictures = shrunk(np.concatenate([first[None], later]))
        return _log_odds(self.network, pictures) >= self.threshold


def train_detector(
    task: str,
    episodes: Sequence[TrueEpisode],
    held_out: Sequence[TrueEpisode],
    *,
    seed: int,
    how: Fitting | None = None,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> SuccessDetector:
    """Train, choose the threshold, and measure, on three disjoint sets of true episodes.

    An imagined episode counts as done if any of its pictures does, so single mistakes add up. The threshold is
    therefore chosen by episode: of a quarter of ``episodes``, kept from training, at most 5 % may be taken for done
    two steps or more before their end.

    Args:
        task: its name.
        episodes: successful ones of the task are used.
        held_out: others, in which accuracy is measured.
        seed: of the training.
        how: how long it learns.
        progress: called with updates done and planned.

    Raises:
        UserError: fewer than 8 successful episodes to learn from, or 1 to measure with.
    """
    usable, tests = ([e for e in some if _fits(e, task)] for some in (episodes, held_out))
    if len(usable) < _LEAST or not tests:
        raise UserError(
            f"a success detector for '{task}' needs {_LEAST} successful true episodes to learn from and 1 to be "
            f"measured with; there are {len(usable)} and {len(tests)}"
        )
    kept = max(1, round(_CALIBRATION * len(usable)))
    calibration, training = usable[:kept], usable[kept:]
    random = np.random.default_rng(derived_seed(f"early pictures of {task}", seed))
    pictures, rows, targets, before = [], [], [], 0
    for episode in training:
        last = len(episode.pictures) - 1
        latest = last - _UNCLEAR
        half = _EARLY_PER_EPISODE // 2
        early = [*random.integers(max(0, latest - _LATE + 1), latest + 1, half), *random.integers(0, latest + 1, half)]
        chosen = [*early, *[last] * len(early)]  # as many of success as of the opposite
        rows += [(before, before + step) for step in chosen]
        targets += [float(step == last) for step in chosen]
        pictures.append(episode.pictures)
        before += len(episode.pictures)
    network = fit(
        np.concatenate(pictures),
        np.array(rows),
        np.array(targets, np.float32)[:, None],
        F.binary_cross_entropy_with_logits,
        seed=derived_seed(f"success detector of {task}", seed),
        how=how or Fitting(updates=300),
        progress=progress,
    )
    earliest = [_log_odds(network, episode.pictures)[:-_UNCLEAR].max() for episode in calibration]
    threshold = max(0.0, float(np.quantile(earliest, 1 - _FALSE_ALARMS, method="higher")) + 1e-6)
    return SuccessDetector(task, network, threshold, _accuracy(network, threshold, training, tests))


def _fits(episode: TrueEpisode, task: str) -> bool:
    return episode.success and task_of(episode.instruction) == task and len(episode.pictures) > _UNCLEAR + 1


def _log_odds(network: SmallNetwork, pictures: np.ndarray) -> np.ndarray:
    """``(P, 3, 64, 80)`` of one episode -> ``(P - 1,)``, of every picture but the first."""
    later = np.arange(1, len(pictures))
    return apply(network, pictures, np.stack([np.zeros_like(later), later], axis=1))[:, 0]


def _accuracy(
    network: SmallNetwork, threshold: float, training: Sequence[TrueEpisode], tests: Sequence[TrueEpisode]
) -> dict[str, Any]:
    told = [_log_odds(network, episode.pictures) >= threshold for episode in tests]
    ends, alarms = sum(bool(d[-1]) for d in told), sum(bool(d[:-_UNCLEAR].any()) for d in told)
    return {
        "trained_on_episodes": len(training),
        "held_out_episodes": len(tests),
        "ends_recognised": ends / len(tests),
        "ends_recognised_interval": wilson(ends, len(tests)),
        "episodes_taken_for_done_too_early": alarms / len(tests),
        "too_early_interval": wilson(alarms, len(tests)),
    }
