"""What sequences of actions cost, by what the world model imagines of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..interfaces import WorldModel
from ..resizing import resize
from .costs import Aim, Cost
from .information import aims_of, pictures_of, raw_candidates
from .scaling import ActionScaler

__all__ = ["ImaginedCost"]


class ImaginedCost:
    """A world model and a cost together: pictures and candidates in, costs out.

    All candidates of a problem are imagined with the same seed, so that they differ by their actions and not by luck.

    Args:
        world_model: what imagines.
        cost: of imagined pictures and actions.
        batch: sequences imagined in one call of the model; it bounds the memory and does not change the costs.
        steps, context_level: of the world model; its own unless given.
        scaler: what ``get_cost``'s candidates are measured in; raw units unless given.
        seed: of the imagination in ``get_cost``.
    """

    def __init__(
        self,
        world_model: WorldModel,
        cost: Cost,
        *,
        batch: int = 32,
        steps: int | None = None,
        context_level: float | None = None,
        scaler: ActionScaler | None = None,
        seed: int = 0,
    ) -> None:
        if batch < 1:
            raise UserError(f"at least 1 sequence is imagined at a time, got a batch of {batch}")
        self.world_model, self.cost, self.batch = world_model, cost, batch
        self._steps, self._context_level = steps, context_level
        self._scaler, self._seed = scaler, seed

    def __call__(
        self, images: Sequence[np.ndarray], candidates: np.ndarray, aims: Sequence[Aim], seeds: Sequence[int]
    ) -> np.ndarray:
        """``(B, S)`` float64.

        Args:
            images: B pictures ``(H, W, 3)`` uint8 of any sizes, what is seen now.
            candidates: ``(B, S, T, D)`` raw units.
            aims: B, what is wanted.
            seeds: B, of the imagination.
        """
        about = self.world_model.about
        problems, samples, horizon, width = candidates.shape
        if width != len(about.action_names):
            raise UserError(f"the world model '{about.name}' takes actions of {len(about.action_names)}, got {width}")
        seen = np.stack([resize(image, (about.height, about.width), about.fit) for image in images])
        costs = np.empty((problems, samples), np.float64)
        sequences = candidates.reshape(-1, horizon, width).astype(np.float32)
        waiting: list[np.ndarray] = []  # imagined, of the problem whose futures are not complete
        problem = 0
        for start in range(0, len(sequences), self.batch):
            rows = np.arange(start, min(start + self.batch, len(sequences))) // samples
            pictures = self.world_model.imagine(
                seen[rows],
                sequences[start : start + len(rows)],
                [aims[row].instruction for row in rows],
                seeds=[seeds[row] for row in rows],
                steps=self._steps,
                context_level=self._context_level,
            )
            waiting.extend(pictures)
            while len(waiting) >= samples:
                future, waiting = np.stack(waiting[:samples]), waiting[samples:]
                costs[problem] = self.cost(future, candidates[problem], replace(aims[problem], fit=about.fit))
                problem += 1
        return costs

    def get_cost(self, info_dict: Mapping[str, Any], action_candidates: Any) -> Any:
        """What stable-worldmodel's solvers ask: costs ``(B, S)`` of candidates ``(B, S, horizon, block * D)``.

        Args:
            info_dict: as its solvers hand it over, everything repeated for each candidate: ``pixels`` and, where the
                cost wants one, ``goal``: ``(B, S, [history,] H, W, 3)`` or channels first, uint8; ``instruction``,
                strings, where there are any.
            action_candidates: a tensor or an array, in units of the ``scaler``; a block of several actions per step is
                taken apart.

        Returns:
            Of the candidates' kind: a float32 tensor on their device, or a float64 array.

        Raises:
            UserError: no pictures, or pictures that were normalised (by a transform of ``WorldModelPolicy``).
        """
        candidates = raw_candidates(action_candidates, len(self.world_model.about.action_names), self._scaler)
        images = pictures_of(info_dict, "pixels", len(candidates))
        if images is None:
            raise UserError(f"planning needs 'pixels', what is seen now; there is only {', '.join(info_dict)}")
        # The same seed for every problem: solvers may hand them over in any number of batches.
        costs = self(images, candidates, aims_of(info_dict, len(candidates)), [self._seed] * len(candidates))
        if isinstance(action_candidates, np.ndarray):
            return costs
        import torch

        return torch.from_numpy(costs.astype(np.float32)).to(action_candidates.device)
