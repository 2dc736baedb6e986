"""The gymnasium environment ``selfflow/Dream-v0``: one dream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import WorldModel
from ..sources import RobotFiles
from .dreamer import Dream, Dreamer, Reward, Success, information
from .starts import Starts

__all__ = ["DreamEnv"]


class DreamEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Acting inside a world model: every step is imagined from the picture that was imagined before.

    Action, ``Box`` of the range that the model was trained on: raw units, in the house's convention (metres, radians,
    the gripper's opening). What lies outside is handed on as it is; the model has not seen it. Observation: ``image``
    ``(height, width, 3)`` uint8 of the model's size.

    ``truncated`` after ``horizon`` steps: imagination ends, the task does not. ``terminated`` only where ``success``
    says so. ``info``: instruction, step, and success where it is judged.

    Step k of an episode is imagined with a hash of (the episode's seed, k), and the episode's seed is drawn at
    ``reset``: the same seed and actions give the same dream.

    Args:
        model: a world model, or the folder of one.
        images: where dreams begin: pictures ``(N, H, W, 3)`` uint8 or a list of them, a data set (its folder, or
            opened) whose episodes' first pictures serve, of the model's camera, or
            :class:`selfflow_robotics.dreams.Starts`. Without it a dream begins from the picture that ``reset`` is
            given, or where the last one began.
        instruction: of pictures that bring none.
        horizon: steps after which an episode is truncated.
        context_level, steps: of the world model; its own unless given. See
            :meth:`selfflow_robotics.interfaces.WorldModel.imagine`.
        reward: ``(image (h, w, 3), instruction) -> float``; 0 without it.
        success: ``(image (h, w, 3), instruction) -> bool``.
        render_mode: ``"rgb_array"`` or None.

    ``reset(seed=, options={"image": (H, W, 3) uint8, "instruction": text, "episode": n})``: options hold for one
    episode; ``episode`` takes the n-th of ``images`` whatever the seed.

    Raises:
        UserError: a setting out of range, nothing to begin from, or an action that is not finite.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 3}

    def __init__(
        self,
        model: WorldModel | Path | str,
        images: np.ndarray | Sequence[np.ndarray] | RobotFiles | Starts | Path | str | None = None,
        instruction: str = "",
        horizon: int = 64,
        context_level: float | None = None,
        steps: int | None = None,
        reward: Reward | None = None,
        success: Success | None = None,
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode '{render_mode}' is not there; use 'rgb_array' or None")
        self._dreamer = Dreamer(model, images, instruction, horizon, context_level, steps, reward, success)
        self._dream: Dream | None = None
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self._dreamer.rate}
        self.action_space = self._dreamer.action_space
        self.observation_space = self._dreamer.observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self._dream = self._dreamer.begin(self.np_random, options or {}, self._dream)
        return {"image": self._dream.picture.copy()}, information(self._dream, None)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        dream = self._present()
        (outcome,) = self._dreamer.advance([dream], np.asarray(action)[None])
        info = information(dream, outcome.success)
        return {"image": dream.picture.copy()}, outcome.reward, bool(outcome.success), outcome.truncated, info

    def render(self) -> np.ndarray | None:
        return None if self.render_mode is None else self._present().picture.copy()

    def get_language_instruction(self) -> str:
        """What is to be done now."""
        return self._present().instruction

    def _present(self) -> Dream:
        if self._dream is None:
            raise UserError("there is no dream yet; call reset() first")
        return self._dream
