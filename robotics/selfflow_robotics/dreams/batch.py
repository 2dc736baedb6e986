"""Many dreams at once: gymnasium's vector environment with one call of the world model per step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from selfflow_mm.errors import UserError

from ..interfaces import WorldModel
from ..sources import RobotFiles
from .dreamer import Dream, Dreamer, Reward, Success, information
from .starts import Starts

__all__ = ["DreamBatch"]

_Step = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class DreamBatch(VectorEnv[dict[str, np.ndarray], np.ndarray, np.ndarray]):
    """``num_envs`` dreams; row i is what a :class:`selfflow_robotics.dreams.DreamEnv` with the same seed gives.

    ``gymnasium.make_vec("selfflow/Dream-v0", num_envs=8, model=...)`` makes one. A row that ended begins anew at the
    next step, whose action it ignores (gymnasium's ``NEXT_STEP``).

    ``reset(seed=...)``: a number (row i has ``seed + i``) or one per row. ``options`` as for one dream, for all rows,
    or with one entry per row: ``image (num_envs, H, W, 3)``, lists of ``instruction`` and ``episode``.

    Args:
        num_envs: rows.
        others: as in :class:`selfflow_robotics.dreams.DreamEnv`.

    Raises:
        UserError: as there, or another number of rows.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 3, "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int,
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
        if num_envs < 1:
            raise UserError(f"there is at least 1 dream, got num_envs = {num_envs}")
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode '{render_mode}' is not there; use 'rgb_array' or None")
        self._dreamer = Dreamer(model, images, instruction, horizon, context_level, steps, reward, success)
        self._dreams: list[Dream | None] = [None] * num_envs
        self._draws: list[np.random.Generator | None] = [None] * num_envs
        self.num_envs, self.render_mode = num_envs, render_mode
        self.metadata = {**self.metadata, "render_fps": self._dreamer.rate}
        self.single_action_space = self._dreamer.action_space
        self.single_observation_space = self._dreamer.observation_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        seeds: Sequence[int | None] = [None] * self.num_envs if seed is None else seed  # type: ignore[assignment]
        if isinstance(seed, (int, np.integer)):
            seeds = [int(seed) + row for row in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise UserError(f"there are {self.num_envs} dreams and {len(seeds)} seeds")
        each = _rows(options or {}, self.num_envs)
        infos: dict[str, Any] = {}
        for row, (one, chosen) in enumerate(zip(seeds, each, strict=True)):
            if one is not None or self._draws[row] is None:
                self._draws[row] = seeding.np_random(one)[0]
            infos = self._add_info(infos, self._begin(row, chosen), row)
        return self._observations(), infos

    def step(self, actions: np.ndarray) -> _Step:
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise UserError(f"actions are {self.action_space.shape}, one row per dream, got {actions.shape}")
        dreams = self._present()
        going = [row for row, dream in enumerate(dreams) if not dream.over]
        outcomes = self._dreamer.advance([dreams[row] for row in going], actions[going]) if going else []
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        infos: dict[str, Any] = {}
        found = dict(zip(going, outcomes, strict=True))
        for row, dream in enumerate(dreams):
            if row in found:
                outcome = found[row]
                rewards[row], terminated[row], truncated[row] = outcome.reward, bool(outcome.success), outcome.truncated
                infos = self._add_info(infos, information(dream, outcome.success), row)
            else:
                infos = self._add_info(infos, self._begin(row, {}), row)
        return self._observations(), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        return None if self.render_mode is None else tuple(dream.picture.copy() for dream in self._present())

    def _begin(self, row: int, options: dict[str, Any]) -> dict[str, Any]:
        draw = self._draws[row]
        assert draw is not None  # reset() gave every row one
        dream = self._dreams[row] = self._dreamer.begin(draw, options, self._dreams[row])
        return information(dream, None)

    def _observations(self) -> dict[str, np.ndarray]:
        return {"image": np.stack([dream.picture for dream in self._present()])}

    def _present(self) -> list[Dream]:
        dreams = [dream for dream in self._dreams if dream is not None]
        if len(dreams) < self.num_envs:
            raise UserError("there are no dreams yet; call reset() first")
        return dreams


def _rows(options: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    """Options of every row, from options for all of them or one entry per row."""
    each: list[dict[str, Any]] = [{} for _ in range(rows)]
    for name, value in options.items():
        several = np.ndim(value) == 4 if name == "image" else isinstance(value, (list, tuple, np.ndarray))
        if several and len(value) != rows:
            raise UserError(f"the option '{name}' has {len(value)} entries for {rows} dreams")
        for row, chosen in enumerate(each):
            chosen[name] = value[row] if several else value
    return each
