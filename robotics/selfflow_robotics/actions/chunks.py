"""Chunks: the next H actions from each step on, at the control rate, and back to one action per step.

Beyond the end of an episode the robot **holds still**: a pose action has zero motion and keeps the last gripper, a
``raw`` one (joint angles and the like, where zero would be a motion) repeats the last action. Such actions are masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from selfflow_mm.errors import UserError

from ..robot_episode import ACTION_NAMES, GRIPPER

__all__ = ["Chunks", "chunk", "executed", "join_terminate", "padded", "split_terminate", "terminates_at_end", "unchunk"]


@dataclass(frozen=True)
class Chunks:
    """``actions (N, H, D)`` of N starts, and ``mask (N, H)``: True where the action is the episode's own."""

    actions: np.ndarray
    mask: np.ndarray


def padded(actions: np.ndarray, steps: np.ndarray, names: Sequence[str] = ACTION_NAMES) -> np.ndarray:
    """The actions at ``steps`` (any shape), which may lie outside the episode; there the robot holds still.

    Before the first step it holds still with the first action's gripper.

    Args:
        actions: ``(T, D)``, T >= 1.
        steps: integers.
        names: of the D columns; those of pose actions, possibly with ``terminate``, or any others.

    Returns:
        ``(*steps.shape, D)`` in the dtype of ``actions``.
    """
    if len(actions) == 0:
        raise UserError("an episode without steps has no actions to take")
    taken = actions[np.clip(steps, 0, len(actions) - 1)]
    if tuple(names[: len(ACTION_NAMES)]) == ACTION_NAMES:
        outside = (steps < 0) | (steps >= len(actions))
        taken[..., :GRIPPER][outside] = 0
    return taken


def chunk(
    actions: np.ndarray,
    horizon: int,
    starts: Sequence[int] | np.ndarray | None = None,
    names: Sequence[str] = ACTION_NAMES,
) -> Chunks:
    """The next ``horizon`` actions from each start on.

    Args:
        actions: ``(T, D)`` of one episode.
        horizon: H.
        starts: steps; every step unless given.
        names: of the D columns.
    """
    if horizon < 1:
        raise UserError(f"a chunk has at least one action, not {horizon}")
    first = np.arange(len(actions)) if starts is None else np.asarray(starts, np.int64)
    steps = first[:, None] + np.arange(horizon)
    return Chunks(padded(actions, steps, names), (steps >= 0) & (steps < len(actions)))


def unchunk(
    chunks: Chunks,
    starts: Sequence[int] | np.ndarray | None = None,
    how: Literal["first", "latest", "mean"] = "first",
) -> np.ndarray:
    """One action per step from chunks that may overlap: the inverse of :func:`chunk`.

    Args:
        chunks: masked entries are not used.
        starts: of each chunk; 0, 1, 2, ... unless given. Steps count from 0 to the last that any chunk holds.
        how: which of several actions for a step: that of the chunk with the earliest start, with the latest start (what
            a policy that plans anew does), or their mean (rotations and grippers too: fine for near ones).

    Returns:
        ``(length, D)`` in the dtype of the chunks.

    Raises:
        UserError: a step has no action.
    """
    if how not in ("first", "latest", "mean"):
        raise UserError(f"overlapping chunks are joined by 'first', 'latest' or 'mean', not by '{how}'")
    first = np.arange(len(chunks.actions)) if starts is None else np.asarray(starts, np.int64)
    order = np.argsort(first, kind="stable")
    order = order[::-1] if how == "first" else order  # so that the wanted one comes last
    steps = (first[order, None] + np.arange(chunks.actions.shape[1]))[chunks.mask[order]]
    values = chunks.actions[order][chunks.mask[order]]
    if np.any(steps < 0):
        raise UserError("a chunk holds an action for a step before 0")
    length = int(steps.max()) + 1 if len(steps) else 0
    count = np.bincount(steps, minlength=length)
    if np.any(count == 0):
        raise UserError(
            f"step {int(np.argmax(count == 0))} is in no chunk: starts lie further apart than chunks are long"
        )
    if how == "mean":
        total = np.zeros((length, values.shape[1]), np.float64)
        np.add.at(total, steps, values)
        return (total / count[:, None]).astype(values.dtype)
    chosen = np.zeros(length, np.int64)
    np.maximum.at(chosen, steps, np.arange(len(steps)))  # the last of those for a step
    return values[chosen]


def executed(actions: ArrayLike, steps: int) -> np.ndarray:
    """The prefix ``(..., steps, D)`` of a chunk ``(..., H, D)`` that is carried out before the next is asked for."""
    array = np.asarray(actions)
    if not 1 <= steps <= array.shape[-2]:
        raise UserError(f"of {array.shape[-2]} actions between 1 and {array.shape[-2]} can be carried out, not {steps}")
    return array[..., :steps, :]


def terminates_at_end(length: int) -> np.ndarray:
    """``(length,)`` bool, True at the last step: for data sets in which the robot never says that it is done."""
    ends = np.zeros(length, bool)
    ends[-1:] = True
    return ends


def join_terminate(actions: np.ndarray, terminate: np.ndarray) -> np.ndarray:
    """``(..., D)`` and ``(...)`` bool -> ``(..., D + 1)``: a last channel, 1 where the robot is done and 0 elsewhere.

    Its name for :func:`padded` and normalisers is ``terminate``.
    """
    return np.concatenate([actions, np.asarray(terminate)[..., None].astype(actions.dtype)], axis=-1)


def split_terminate(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of :func:`join_terminate`; a model's channel counts as done above 0.5."""
    return actions[..., :-1], actions[..., -1] > 0.5
