"""Policies that imagine before they act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import ChunkPolicy, PolicyAbout, Request, refuse_other_actions
from ..policies.seeds import derived_seed
from .costs import Aim
from .imagined import ImaginedCost
from .planner import Bounds, Planner

__all__ = ["BestOfK", "PlanningPolicy"]


class PlanningPolicy:
    """Plans through a world model, anew for every request.

    A chunk is a function of its request: the observation, the seed, and nothing before. The observation's state is not
    looked at.

    Args:
        judge: the world model and what is wanted of it. An aim has the request's instruction and no goal picture of its
            own; :class:`selfflow_robotics.planning.GoalImageCost` finds those by the instruction.
        planner: how to search.
        horizon: H; as many actions as the world model imagines in one go unless given.
        bounds: of the actions; the range that the world model was trained on unless given.
        proposal: a policy whose chunks the search begins from; the middle of the bounds unless given.

    Raises:
        UserError: the proposal's actions are not the world model's, or the world model does not tell their range.
    """

    def __init__(
        self,
        judge: ImaginedCost,
        planner: Planner,
        *,
        horizon: int | None = None,
        bounds: Bounds | None = None,
        proposal: ChunkPolicy | None = None,
    ) -> None:
        about = judge.world_model.about
        if proposal is not None:
            refuse_other_actions(proposal.about, about)
        self._judge, self._planner, self._proposal = judge, planner, proposal
        self._bounds = bounds or Bounds.of(about)
        self._about = PolicyAbout(
            name=f"{type(planner).__name__} through {about.name}",
            horizon=about.horizon if horizon is None else horizon,
            control_rate=about.control_rate,
            action_names=about.action_names,
            state_names=() if proposal is None else proposal.about.state_names,
            needs_state=proposal is not None and proposal.about.needs_state,
            extra={"world_model": about.name, "planner": repr(planner)},
        )

    @property
    def about(self) -> PolicyAbout:
        return self._about

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        horizon = self._about.horizon
        if not requests:
            return np.empty((0, horizon, len(self._about.action_names)), np.float32)
        images = [request.observation.image for request in requests]
        aims = [Aim(request.observation.instruction) for request in requests]
        imagination = [derived_seed("imagination", request.seed) for request in requests]
        start = None if self._proposal is None else self._proposal.chunks(requests)[:, :horizon]
        plan = self._planner.plan(
            lambda candidates: self._judge(images, candidates, aims, imagination),
            self._bounds,
            horizon,
            [derived_seed("search", request.seed) for request in requests],
            start,
        )
        return plan.actions.astype(np.float32)


class BestOfK:
    """A policy that draws K chunks, imagines what each leads to, and takes the one whose future costs least.

    The first chunk is what the policy would do anyway, and wins ties; with ``k=1`` nothing is imagined and this is the
    policy itself.

    Args:
        policy: what proposes.
        judge: the world model and what is wanted of it.
        k: K, at least 1.

    Raises:
        UserError: k is below 1, or the policy's actions are not the world model's.
    """

    def __init__(self, policy: ChunkPolicy, judge: ImaginedCost, k: int = 8) -> None:
        if k < 1:
            raise UserError(f"at least 1 chunk is drawn, got k = {k}")
        refuse_other_actions(policy.about, judge.world_model.about)
        self._policy, self._judge, self._k = policy, judge, k
        about = policy.about
        extra = about.extra | {"best_of": k, "world_model": judge.world_model.about.name}
        self._about = replace(about, name=f"{about.name}, best of {k}", extra=extra)

    @property
    def about(self) -> PolicyAbout:
        return self._about

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        if self._k == 1 or not requests:
            return self._policy.chunks(requests)
        drawn = self._policy.chunks(
            [
                replace(request, seed=derived_seed("chunk", request.seed, n) if n else request.seed)
                for request in requests
                for n in range(self._k)
            ]
        )
        candidates = drawn.reshape(len(requests), self._k, *drawn.shape[1:])
        costs = self._judge(
            [request.observation.image for request in requests],
            candidates,
            [Aim(request.observation.instruction) for request in requests],
            [derived_seed("imagination", request.seed) for request in requests],
        )
        return candidates[np.arange(len(requests)), np.argmin(costs, axis=1)]
