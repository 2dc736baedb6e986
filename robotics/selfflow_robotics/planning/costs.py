"""What a plan is wanted for, as a number: costs of imagined pictures and of the actions that lead to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from selfflow_mm.errors import UserError

from ..resizing import Fit, resize

__all__ = ["ActionPenalty", "Aim", "Cost", "GoalImageCost", "Score", "ScoreCost", "WeightedSum"]

#: How good a picture ``(h, w, 3)`` uint8 is for an instruction; more is better.
Score = Callable[[np.ndarray, str], float]


@dataclass(frozen=True, eq=False)
class Aim:
    """What is wanted of one plan.

    Attributes:
        instruction: in words.
        goal: ``(H, W, 3)`` uint8, how it should look, or None where nothing shows it.
        fit: how the world model brings pictures to its size.
    """

    instruction: str = ""
    goal: np.ndarray | None = None
    fit: Fit = "pad"


class Cost(Protocol):
    """The cost of S imagined futures that start from the same picture; less is better, infinity is never chosen."""

    def __call__(self, pictures: np.ndarray, actions: np.ndarray, aim: Aim) -> np.ndarray:
        """``(S,)`` from pictures ``(S, T, h, w, 3)`` uint8, seen after each action, and raw actions ``(S, T, D)``."""
        ...


@dataclass(frozen=True, eq=False)
class GoalImageCost:
    """Mean squared distance of imagined pictures to a goal picture: of pixels in [0, 1], or of what ``encode`` gives.

    Attributes:
        goals: for aims without a goal of their own: a picture for every instruction, or one for all.
        encode: pictures ``(N, h, w, 3)`` uint8 -> ``(N, ...)`` numbers, such as a tokenizer's latents; None compares
            pixels.
        every: the mean over all pictures of a future, which wants to be there soon; otherwise the last picture counts.
        fit: how a goal of another size is brought to that of the imagined pictures; None for as the world model does,
            so that both show the same thing in the same place.
    """

    goals: Mapping[str, np.ndarray] | np.ndarray | None = None
    encode: Callable[[np.ndarray], np.ndarray] | None = None
    every: bool = False
    fit: Fit | None = None

    def __call__(self, pictures: np.ndarray, actions: np.ndarray, aim: Aim) -> np.ndarray:
        goal = resize(self.goal(aim), pictures.shape[2:4], self.fit or aim.fit)
        seen = pictures if self.every else pictures[:, -1:]
        wanted = self._values(goal[None])
        # A future at a time: as floats, all of them at once would take many times the memory of the pictures.
        return np.array([np.mean(np.square(self._values(future) - wanted)) for future in seen], np.float64)

    def goal(self, aim: Aim) -> np.ndarray:
        """The goal picture of an aim.

        Raises:
            UserError: it has none, or it is no picture.
        """
        goal = aim.goal
        if goal is None and isinstance(self.goals, Mapping):
            goal = self.goals.get(aim.instruction)
            if goal is None:
                known = ", ".join(f"'{name}'" for name in self.goals) or "none"
                raise UserError(
                    f"there is no goal picture for the instruction '{aim.instruction}'; there is for {known}"
                )
        elif goal is None:
            goal = self.goals  # type: ignore[assignment]
        if goal is None:
            raise UserError("a plan to a goal picture needs one: give GoalImageCost 'goals', or an aim its 'goal'")
        if goal.ndim != 3 or goal.shape[2] != 3 or goal.dtype != np.uint8:
            raise UserError(f"a goal picture is (height, width, 3) of uint8, got {goal.shape} of {goal.dtype}")
        return goal

    def _values(self, pictures: np.ndarray) -> np.ndarray:
        if self.encode is None:
            return pictures.astype(np.float32) / 255
        return np.asarray(self.encode(pictures), np.float32)


@dataclass(frozen=True, eq=False)
class ScoreCost:
    """Minus a score: of the last imagined picture, or with ``every`` the mean of the scores of all."""

    score: Score
    every: bool = False

    def __call__(self, pictures: np.ndarray, actions: np.ndarray, aim: Aim) -> np.ndarray:
        seen = pictures if self.every else pictures[:, -1:]
        return np.array(
            [-np.mean([float(self.score(picture, aim.instruction)) for picture in future]) for future in seen],
            np.float64,
        )


@dataclass(frozen=True, eq=False)
class ActionPenalty:
    """``size * mean(a^2) + change * mean((a_t - a_(t-1))^2)``, with a the actions over ``scale``.

    Attributes:
        scale: raw units, one number or one per column; infinity leaves a column out, such as a gripper's.
        size: weight of how large actions are.
        change: weight of how much they differ from the one before.
    """

    scale: ArrayLike = 1.0
    size: float = 0.0
    change: float = 0.0

    def __post_init__(self) -> None:
        if not np.all(np.asarray(self.scale, np.float64) > 0):
            raise UserError(f"an action penalty's scale is above 0, got {self.scale}")
        for name in ("size", "change"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"an action penalty's '{name}' is at least 0, got {getattr(self, name)}")

    def __call__(self, pictures: np.ndarray, actions: np.ndarray, aim: Aim) -> np.ndarray:
        scaled = np.asarray(actions, np.float64) / np.asarray(self.scale, np.float64)
        cost = self.size * np.square(scaled).mean(axis=(1, 2))
        if scaled.shape[1] > 1:
            cost = cost + self.change * np.square(np.diff(scaled, axis=1)).mean(axis=(1, 2))
        return cost


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """``sum(weight * cost)`` of pairs (weight, cost)."""

    terms: Sequence[tuple[float, Cost]]

    def __call__(self, pictures: np.ndarray, actions: np.ndarray, aim: Aim) -> np.ndarray:
        return np.sum([weight * cost(pictures, actions, aim) for weight, cost in self.terms], axis=0)
