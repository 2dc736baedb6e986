"""Our planners where stable-worldmodel expects one of its solvers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from selfflow_mm.errors import UserError

from ..policies.seeds import derived_seed
from .planner import Bounds, Planner

if TYPE_CHECKING:
    import torch

__all__ = ["Costable", "Solver"]


class Costable(Protocol):
    """What a solver asks of a model: :class:`selfflow_robotics.planning.ImaginedCost`, or a model of theirs."""

    def get_cost(self, info_dict: Mapping[str, Any], action_candidates: Any) -> Any: ...


class Solver:
    """stable-worldmodel's ``Solver`` protocol (version 0.1): ``WorldModelPolicy(Solver(CEM(), cost), config)``.

    Actions are in the units of the action space, whose bounds hold; there is no ``process["action"]`` to undo.

    Args:
        planner: such as :class:`selfflow_robotics.planning.CEM`.
        model: what gives costs.
        seed: of the search; the n-th call draws other candidates than the first.
    """

    def __init__(self, planner: Planner, model: Costable, seed: int = 0) -> None:
        self.planner, self.model = planner, model
        self._seed, self._calls = seed, 0

    def configure(self, *, action_space: Any, n_envs: int, config: Any) -> None:
        """Say for what: a batched ``Box``, the number of environments, and a ``PlanConfig``.

        Raises:
            UserError: the space has no finite bounds.
        """
        if not hasattr(action_space, "low"):
            raise UserError(f"plans are of continuous actions, a Box; the action space is {action_space}")
        low, high = (np.asarray(bound[0], np.float64).reshape(-1) for bound in (action_space.low, action_space.high))
        self._bounds = Bounds(np.tile(low, config.action_block), np.tile(high, config.action_block))
        self._n_envs, self._config = n_envs, config

    @property
    def action_dim(self) -> int:
        """Columns of a step, with all actions of its block."""
        return len(self._bounds.low)

    @property
    def n_envs(self) -> int:
        return self._n_envs

    @property
    def horizon(self) -> int:
        return self._config.horizon

    def solve(self, info_dict: Mapping[str, Any], init_action: torch.Tensor | None = None) -> dict[str, Any]:
        """Plan for every environment of ``info_dict``.

        Args:
            info_dict: tensors, arrays or lists with one entry per environment.
            init_action: ``(n, t, action_dim)``, what is left of the last plan; the search begins there.

        Returns:
            ``actions``, a float32 tensor ``(n, horizon, action_dim)``, and ``costs``, one per environment.
        """
        import torch

        problems = len(next(iter(info_dict.values())))

        def objective(candidates: np.ndarray) -> np.ndarray:
            repeated = {name: _repeated(values, candidates.shape[1]) for name, values in info_dict.items()}
            return self.model.get_cost(repeated, torch.from_numpy(candidates.astype(np.float32))).cpu().numpy()

        plan = self.planner.plan(
            objective,
            self._bounds,
            self.horizon,
            [derived_seed("search", self._seed, self._calls, problem) for problem in range(problems)],
            None if init_action is None else init_action.detach().cpu().numpy(),
        )
        self._calls += 1
        return {"actions": torch.from_numpy(plan.actions.astype(np.float32)), "costs": plan.cost.tolist()}

    __call__ = solve


def _repeated(values: Any, samples: int) -> Any:
    """``(n, ...)`` -> ``(n, samples, ...)`` without a copy; lists stay as they are."""
    if isinstance(values, np.ndarray):
        return np.broadcast_to(values[:, None], (len(values), samples, *values.shape[1:]))
    if hasattr(values, "unsqueeze"):
        return values.unsqueeze(1).expand(len(values), samples, *values.shape[1:])
    return values
