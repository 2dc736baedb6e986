"""The tabletop as a worker's world: what SIMPLER's runner does can be tried and tested without a simulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..policies.seeds import derived_seed
from .worker import World

__all__ = ["TabletopWorld"]

_UPRIGHT = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


class TabletopWorld(World):
    """``selfflow/Tabletop-v0``, of the repository's own Python; poses are in its base's frame."""

    def build(self, trial: dict[str, Any]) -> Any:
        import gymnasium

        from ..tabletop import ID

        options = trial["options"]
        return gymnasium.make(ID, task=options["task"], variant=options["variant"], disable_env_checker=True)

    def places(self, trial: dict[str, Any]) -> dict[str, Any]:
        # A number of 63 bits: recordings number their scenes by hashes of 32, so that none of these is in any of them.
        return {"episode": derived_seed("scene of a suite", trial["episode"])}

    def image(self, env: Any, obs: Any) -> np.ndarray:
        from ..tabletop import get_image

        return get_image(env, obs)

    def body(self, env: Any, obs: Any) -> dict[str, Any]:
        return {
            "tcp_pose": np.asarray(obs["extra"]["tcp_pose"], np.float64),
            "base_pose": np.array(_UPRIGHT),
            "gripper_closed": float(obs["agent"]["qpos"][6]),
        }
