"""A policy that acts in a dream: its chunks move the world model, whose last picture it sees next."""

from __future__ import annotations

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import WorldModel, refuse_other_actions
from ..policies import Policy
from ..policies.seeds import derived_seed

__all__ = ["act_in_dream"]


def act_in_dream(
    model: WorldModel,
    policy: Policy,
    image: np.ndarray,
    instruction: str,
    *,
    length: int,
    seed: int,
    state: np.ndarray | None = None,
    steps: int | None = None,
    context_level: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """``length`` actions ``(T, D)`` float32 and the pictures after them ``(T, h, w, 3)`` uint8.

    The actions that the policy executes of a chunk are imagined in one go, which drifts less than one by one.

    Args:
        model, policy: with the same actions.
        image: ``(H, W, 3)`` uint8, what is seen first.
        instruction: what the policy is told.
        length: T, at least 1.
        seed: of the policy and of the imagination.
        state: of the robot at first. Imagination has no state, so later questions come without one.
        steps, context_level: of the world model.

    Raises:
        UserError: their actions differ, or the policy cannot do without a state.
    """
    ours = policy.about
    refuse_other_actions(ours, model.about)
    policy.reset(seed)
    actions: list[np.ndarray] = []
    pictures: list[np.ndarray] = []
    while len(actions) < length:
        if actions and ours.needs_state:
            raise UserError(
                f"{ours.name} needs the robot's state, and imagination has pictures only; imagine at most "
                f"{policy.executed} actions of it"
            )
        chunk = policy.act(image, instruction, None if actions else state)[: policy.executed][: length - len(actions)]
        seen = model.imagine(
            image[None],
            chunk[None],
            [instruction],
            seeds=[derived_seed("dream", seed, len(actions))],
            steps=steps,
            context_level=context_level,
        )[0]
        actions.extend(chunk)
        pictures.extend(seen)
        image = seen[-1]
    return np.stack(actions), np.stack(pictures)
