"""What a world is to the loop that lets policies act in it, so that another simulator needs one class.

Everything here is sent between processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..interfaces import Observation

__all__ = ["Job", "Moment", "Simulation"]


@dataclass(frozen=True)
class Job:
    """One episode to be acted.

    Attributes:
        task: name in the simulation.
        episode: its number.
        layout: which of the task's scenes.
        seed: of the policy.
        filmed: whether every step's picture is wanted.
    """

    task: str
    episode: int
    layout: int
    seed: int
    filmed: bool = False


@dataclass(frozen=True, eq=False)
class Moment:
    """Where an episode is, at its start or after some actions.

    Attributes:
        observation: what is seen now; None when the episode is over.
        steps: control steps since the start.
        success: whether the aim is reached now.
        success_any: whether it was at any step.
        instructions: that were given so far, in order; the last is valid now.
        frames: JPEG files of what was seen since the last moment, one per step and the start's; empty if not filmed.
    """

    observation: Observation | None
    steps: int
    success: bool
    success_any: bool
    instructions: tuple[str, ...]
    frames: tuple[bytes, ...] = ()


class Simulation(Protocol):
    """One world in which one episode after another takes place."""

    def start(self, job: Job) -> Moment:
        """Begin an episode: a function of ``job.task`` and ``job.layout`` alone."""
        ...

    def carry_out(self, actions: np.ndarray) -> Moment:
        """Take ``(n, D)`` actions in the house's convention one after another, or fewer where the episode ends."""
        ...
