"""A robot model as an inverse model: which actions lead from the first picture through the others?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfflow_mm.errors import UserError
from selfflow_mm.tokens import TokenStream

from .model import RobotModel
from .streams import action_stream, video_positions
from .tasks import ACTION, TASKS, VIDEO

__all__ = ["recover_actions"]


def recover_actions(
    model: RobotModel,
    frames: np.ndarray,
    instructions: Sequence[str] | None = None,
    *,
    seeds: Sequence[int],
    steps: int | None = None,
) -> np.ndarray:
    """Actions from pictures before and after.

    Args:
        model: trained for the task ``inverse``.
        frames: ``(B, F, h, w, 3)`` uint8 at the model's video rate: the present and what followed each of T actions, T
            at most the horizon (F is ``model.spec.frames(T)``).
        instructions, seeds, steps: as of a world model.

    Returns:
        ``(B, T, D)`` float32 in raw units.

    Raises:
        UserError: the model was not trained for it, or the frames do not show whole actions.
    """
    model.wants("inverse")
    spec, rows = model.spec, len(frames)
    count = (frames.shape[1] - 1) // spec.frames_per_action
    if not 1 <= count <= spec.horizon or frames.shape[1] != spec.frames(count):
        raise UserError(
            f"{frames.shape[1]} frames do not show 1 to {spec.horizon} whole actions; each is "
            f"{spec.frames_per_action} frames after the first"
        )
    clean = model.encode(frames)
    places = video_positions(model.video, spec, frames.shape[1])
    noise = model.noise(ACTION, seeds, count, len(spec.action_names))
    streams = {
        VIDEO: TokenStream.dense(model.noise(VIDEO, seeds, *clean.shape[1:]), places),
        ACTION: action_stream(noise, spec.control_rate),
    }
    text = [""] * rows if instructions is None else list(instructions)
    values = model.solve(TASKS["inverse"].conditions(), streams, {VIDEO: clean}, text, steps=steps)
    return spec.raw_actions(values[ACTION].float().cpu().numpy())
