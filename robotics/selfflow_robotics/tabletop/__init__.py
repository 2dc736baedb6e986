"""A small tabletop in plain gymnasium with SIMPLER's conventions: a test bed, not a benchmark.

Importing this module registers ``selfflow/Tabletop-v0``; ``gymnasium.make("selfflow_robotics.tabletop:selfflow/
Tabletop-v0")`` imports it by itself.
"""

from __future__ import annotations

import gymnasium

from .env import TabletopEnv, get_image
from .expert import Expert
from .tasks import ALL_TASKS, TASKS
from .variants import VARIANTS

__all__ = ["ALL_TASKS", "TASKS", "VARIANTS", "Expert", "TabletopEnv", "get_image"]

ID = "selfflow/Tabletop-v0"

if ID not in gymnasium.registry:
    # No max_episode_steps: limits differ between tasks, and the environment truncates by itself.
    gymnasium.register(ID, entry_point="selfflow_robotics.tabletop.env:TabletopEnv")
