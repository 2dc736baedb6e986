"""The world model as an environment: gymnasium's interface, one dream or many at once, and films of what is imagined.

Importing this module registers ``selfflow/Dream-v0``; ``gymnasium.make("selfflow_robotics.dreams:selfflow/Dream-v0",
model=...)`` imports it by itself. ``gymnasium.make_vec`` gives a :class:`DreamBatch`.
"""

from __future__ import annotations

import gymnasium

from .batch import DreamBatch
from .env import DreamEnv
from .loading import open_world_model
from .starts import Starts

__all__ = ["ID", "DreamBatch", "DreamEnv", "Starts", "open_world_model"]

ID = "selfflow/Dream-v0"

if ID not in gymnasium.registry:
    # No max_episode_steps: the environment truncates by itself.
    gymnasium.register(
        ID,
        entry_point="selfflow_robotics.dreams.env:DreamEnv",
        vector_entry_point="selfflow_robotics.dreams.batch:DreamBatch",
    )
