"""Policies acting in imagination: they see imagined pictures, and what they do there is imagined on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy, Observation, Request, WorldModel
from ..policies import ActingOptions, Policy
from ..policies.seeds import derived_seed
from ..resizing import resize
from .films import Imagining
from .held_out import View

__all__ = ["Ended", "Judge", "NoisyPolicy", "Start", "imagine_episodes"]


class Judge(Protocol):
    """What tells success in pictures (:class:`selfflow_robotics.report_card.success.SuccessDetector`)."""

    def done(self, first: np.ndarray, later: np.ndarray) -> np.ndarray:
        """``(T,)`` bool for ``later (T, H, W, 3)`` of an episode that began with ``first (H, W, 3)``."""
        ...


@dataclass(frozen=True, eq=False)
class Start:
    """Where an episode begins, in truth and in imagination.

    Attributes:
        task: its name.
        episode, layout: numbers, as in :class:`selfflow_robotics.rollouts.results.EpisodeResult`.
        image: ``(h, w, 3)`` uint8, of any size.
        instruction: what the robot is told.
    """

    task: str
    episode: int
    layout: int
    image: np.ndarray
    instruction: str


@dataclass(frozen=True)
class Ended:
    """An imagined episode that is over: whether a judge saw success, and after how many actions."""

    success: bool
    steps: int


class NoisyPolicy:
    """Another policy with Gaussian noise on its motion: a worse one of the same kind, to be ranked beside it.

    Args:
        policy: the other one.
        amount: the noise's deviation as a share of half the range of each action, at least 0.
        low, high: that range, ``(D,)``.
    """

    def __init__(self, policy: ChunkPolicy, amount: float, low: Sequence[float], high: Sequence[float]) -> None:
        names = policy.about.action_names
        if not amount >= 0 or not len(low) == len(high) == len(names):
            raise UserError(
                f"noise needs an amount of at least 0 and the range of all {len(names)} actions, got {amount} and "
                f"ranges of {len(low)} and {len(high)}"
            )
        self.about = policy.about
        self._policy = policy
        moves = np.array([name not in ("gripper", "terminate") for name in names])
        self._deviation = amount * moves * (np.array(high) - np.array(low)) / 2

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        chunks = self._policy.chunks(requests)
        noise = [
            np.random.default_rng(derived_seed("noise of a policy", request.seed)).normal(size=chunks.shape[1:])
            for request in requests
        ]
        return (chunks + np.stack(noise) * self._deviation).astype(np.float32)


@dataclass(eq=False)
class _Live:
    place: int
    start: Start
    policy: Policy
    first: np.ndarray
    picture: np.ndarray
    seed: int
    steps: int = field(default=0)


def imagine_episodes(
    model: WorldModel,
    view: View,
    policy: ChunkPolicy,
    starts: Sequence[Start],
    judges: Mapping[str, Judge],
    *,
    how: Imagining,
    acting: ActingOptions,
    limit: int,
    progress: Callable[[int, int], None] = lambda done, planned: None,
) -> list[Ended]:
    """Let the policy act from each start until a judge sees success or ``limit`` actions are done.

    The policy sees the picture in the model's size, from the first one on, and no state: in a dream nobody knows it.
    The actions it carries out between two questions are imagined in one go.

    Args:
        model: where the policy acts.
        view: the model's.
        policy: asked about all episodes of a batch at once.
        starts: of the episodes.
        judges: task -> what tells success.
        how: how the model is asked, and the seed of all.
        acting: how the policy's chunks are used; its seed is replaced by one for each episode.
        limit: most actions.
        progress: called with episodes ended and planned.

    Returns:
        One per start.

    Raises:
        UserError: the policy needs a state, or has other actions than the model.
    """
    about = policy.about
    if about.needs_state:
        raise UserError(
            f"the policy {about.name} needs the robot's state, which nobody knows in imagination; it cannot be ranked"
        )
    if about.action_names != model.about.action_names:
        raise UserError(
            f"the policy {about.name} gives {', '.join(about.action_names)}; the world model takes "
            f"{', '.join(model.about.action_names)}"
        )
    if limit < 1:
        raise UserError(f"an episode has at least one action, not {limit}")
    ended: dict[int, Ended] = {}
    progress(0, len(starts))
    for begin in range(0, len(starts), how.batch):
        places = range(begin, min(begin + how.batch, len(starts)))
        live = [_begin(place, starts[place], view, policy, acting, how.seed) for place in places]
        while live:
            count = min(live[0].policy.executed, limit - live[0].steps)  # all are equally far
            live = _advance(model, policy, live, count, judges, how, limit, ended)
            progress(len(ended), len(starts))
    return [ended[place] for place in range(len(starts))]


def _begin(place: int, start: Start, view: View, policy: ChunkPolicy, acting: ActingOptions, seed: int) -> _Live:
    own = derived_seed(f"imagined episode of {start.task}", seed, start.layout)
    alone = Policy(policy, acting)
    alone.reset(own)
    first = resize(start.image, (view.height, view.width), view.fit)
    return _Live(place, start, alone, first, first, own)


def _advance(
    model: WorldModel,
    policy: ChunkPolicy,
    live: list[_Live],
    count: int,
    judges: Mapping[str, Judge],
    how: Imagining,
    limit: int,
    ended: dict[int, Ended],
) -> list[_Live]:
    """One question to the policy and what comes of it; gives those that go on."""
    chunks = policy.chunks([one.policy.request(Observation(one.picture, one.start.instruction)) for one in live])
    actions = np.stack([one.policy.answer(chunk)[:count] for one, chunk in zip(live, chunks, strict=True)])
    films = how.ask(
        model,
        np.stack([one.picture for one in live]),
        actions,
        [one.start.instruction for one in live],
        [derived_seed("imagined step", one.seed, one.steps) for one in live],
    )
    going = []
    for one, film in zip(live, films, strict=True):
        seen = judges[one.start.task].done(one.first, film)
        one.picture = film[-1]
        if seen.any():
            ended[one.place] = Ended(True, one.steps + int(np.argmax(seen)) + 1)
        elif one.steps + count >= limit:
            ended[one.place] = Ended(False, limit)
        else:
            going.append(one)
        one.steps += count
    return going
