"""What one dream and many dreams share: how they begin, how they go on, and when they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from selfflow_mm.errors import UserError

from ..interfaces import Observation, WorldModel
from ..policies.seeds import derived_seed
from ..resizing import resize
from ..sources import RobotFiles
from .loading import open_world_model
from .starts import Starts

__all__ = ["Dream", "Dreamer", "Outcome", "Reward", "Success", "information"]

#: A picture ``(h, w, 3)`` uint8 and the instruction -> the reward, or whether what was asked for is done.
Reward = Callable[[np.ndarray, str], float]
Success = Callable[[np.ndarray, str], bool]

_OPTIONS = ("image", "instruction", "episode")


@dataclass
class Dream:
    """One episode of imagination.

    Attributes:
        first: ``(h, w, 3)`` uint8, the picture it began from, in the model's size.
        picture: what is seen now.
        instruction: what is to be done.
        seed: of the episode.
        step: actions so far.
        over: whether it ended.
    """

    first: np.ndarray
    picture: np.ndarray
    instruction: str
    seed: int
    step: int = 0
    over: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one action brought: reward, success (None where nobody judges it), and the end of imagination."""

    reward: float
    success: bool | None
    truncated: bool


class Dreamer:
    """The world model with rules; arguments as in :class:`selfflow_robotics.dreams.DreamEnv`."""

    def __init__(
        self,
        model: WorldModel | Path | str,
        images: np.ndarray | Sequence[np.ndarray] | RobotFiles | Starts | Path | str | None,
        instruction: str,
        horizon: int,
        context_level: float | None,
        steps: int | None,
        reward: Reward | None,
        success: Success | None,
    ) -> None:
        if horizon < 1:
            raise UserError(f"a dream lasts at least 1 step, got a horizon of {horizon}")
        if steps is not None and steps < 1:
            raise UserError(f"the solver takes at least 1 step, got {steps}")
        if context_level is not None and not 0 <= context_level < 1:
            raise UserError(f"context_level is a noise level in [0, 1), got {context_level}")
        self._model = open_world_model(model)
        self._instruction, self._horizon = instruction, horizon
        self._context_level, self._steps = context_level, steps
        self._reward, self._success = reward, success
        about = self._model.about
        self._starts: Starts | None
        if images is None or isinstance(images, Starts):
            self._starts = images
        else:
            self._starts = Starts(images, instruction, about.camera or None)
        self._size, self._fit = (about.height, about.width), about.fit
        columns = len(about.action_names)
        if len(about.action_low) != columns or len(about.action_high) != columns:
            raise UserError(f"the world model '{about.name}' does not tell the range of its actions")
        self.rate = about.control_rate
        self.action_space = spaces.Box(np.array(about.action_low, np.float32), np.array(about.action_high, np.float32))
        self.observation_space = spaces.Dict({"image": spaces.Box(0, 255, (*self._size, 3), np.uint8)})

    def begin(self, generator: np.random.Generator, options: Mapping[str, Any], before: Dream | None) -> Dream:
        """A new dream; ``before`` is the one that ended, whose start serves again where there are no others.

        Raises:
            UserError: an unknown option, or nothing to begin from.
        """
        for name in options:
            if name not in _OPTIONS:
                raise UserError(f"reset does not know the option '{name}'; known: {', '.join(_OPTIONS)}")
        # One draw per episode, so that options do not shift the episodes that follow.
        seed = int(generator.integers(2**63))
        if options.get("image") is not None:
            image, instruction = np.asarray(options["image"]), self._instruction
        elif self._starts is not None and options.get("episode") is not None:
            image, instruction = self._starts.read(int(options["episode"]))
        elif self._starts is not None:
            image, instruction = self._starts.draw(np.random.default_rng(derived_seed("start", seed)))
        elif before is not None and options.get("episode") is None:
            image, instruction = before.first, before.instruction
        else:
            raise UserError(
                "a dream needs a picture to begin from: reset(options={'image': ...}), or 'images' when it is made"
            )
        seen = Observation(image, str(options.get("instruction", instruction)))
        first = resize(seen.image, self._size, self._fit)
        return Dream(first, first, seen.instruction, seed)

    def advance(self, dreams: Sequence[Dream], actions: np.ndarray) -> list[Outcome]:
        """One action each, ``(n, D)`` in raw units, by one call of the model; the dreams are changed in place.

        Raises:
            UserError: a dream that is over, or actions of another shape or not finite.
        """
        actions = np.asarray(actions, np.float32)
        shape = (len(dreams), *self.action_space.shape)
        if actions.shape != shape or not np.isfinite(actions).all():
            raise UserError(f"actions are {shape} finite numbers, got {actions.shape}: {actions.tolist()}")
        if any(dream.over for dream in dreams):
            raise UserError("the dream is over; call reset() for another one")
        pictures = self._model.imagine(
            np.stack([dream.picture for dream in dreams]),
            actions[:, None],
            [dream.instruction for dream in dreams],
            seeds=[derived_seed("step", dream.seed, dream.step) for dream in dreams],
            steps=self._steps,
            context_level=self._context_level,
        )
        return [self._outcome(dream, picture) for dream, picture in zip(dreams, pictures[:, -1], strict=True)]

    def _outcome(self, dream: Dream, picture: np.ndarray) -> Outcome:
        dream.picture, dream.step = picture, dream.step + 1
        reward = 0.0 if self._reward is None else float(self._reward(picture, dream.instruction))
        success = None if self._success is None else bool(self._success(picture, dream.instruction))
        truncated = dream.step >= self._horizon
        dream.over = truncated or bool(success)
        return Outcome(reward, success, truncated)


def information(dream: Dream, success: bool | None) -> dict[str, Any]:
    """What ``info`` tells of a dream."""
    told: dict[str, Any] = {"instruction": dream.instruction, "step": dream.step}
    return told if success is None else told | {"success": success}
