"""What policies and world models are to everybody who uses them: servers, rollouts, planners and report cards.

Pictures are uint8 RGB of any size, actions are in raw units and in the house's convention: x, y, z in metres, roll,
pitch, yaw in radians, the gripper's absolute opening (1 open, 0 closed). Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from selfflow_mm.errors import UserError

from .resizing import Fit
from .robot_episode import ACTION_NAMES

__all__ = [
    "ChunkPolicy",
    "Observation",
    "PolicyAbout",
    "Request",
    "WorldModel",
    "WorldModelAbout",
    "refuse_other_actions",
]


@dataclass(frozen=True, eq=False)
class Observation:
    """What a robot sees when it asks what to do.

    Attributes:
        image: ``(H, W, 3)`` uint8, of any size.
        instruction: what the robot was told.
        state: ``(S,)`` in raw units, or None where it is not known.
    """

    image: np.ndarray
    instruction: str
    state: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8 or self.image.size == 0:
            raise UserError(
                f"an observation's image is (height, width, 3) of uint8, got {self.image.shape} of {self.image.dtype}"
            )
        if self.state is not None and self.state.ndim != 1:
            raise UserError(f"an observation's state is (S,) numbers, got shape {self.state.shape}")
        if self.state is not None and not np.all(np.isfinite(self.state)):
            raise UserError(f"an observation's state is finite numbers, got {self.state.tolist()}")


@dataclass(frozen=True, eq=False)
class Request:
    """One question to a policy that has no memory.

    Attributes:
        observation: what is seen.
        seed: of everything random in the answer, 0 <= seed < 2**63.
        query: how many chunks were asked for before in this episode.
    """

    observation: Observation
    seed: int = 0
    query: int = 0


@dataclass(frozen=True)
class PolicyAbout:
    """What a policy says of itself.

    Attributes:
        name: for logs and results.
        horizon: H, actions in a chunk.
        control_rate: actions per second.
        action_names: of the D columns.
        state_names: of the S numbers that an observation's state has; empty where none is taken.
        needs_state: is an observation without a state refused?
        executed: actions of a chunk that must be carried out before the next question; None leaves it to who asks.
        extra: anything else worth telling a client, as plain values (JSON).
    """

    name: str
    horizon: int
    control_rate: float
    action_names: tuple[str, ...] = ACTION_NAMES
    state_names: tuple[str, ...] = ()
    needs_state: bool = False
    executed: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class ChunkPolicy(Protocol):
    """Observations in, chunks of actions out; nothing is remembered between calls, so any number of episodes can share
    one. :class:`selfflow_robotics.policies.Policy` adds what an episode needs (seeds, ensembling).
    """

    @property
    def about(self) -> PolicyAbout: ...

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        """``(B, H, D)`` float32 in raw units; row i depends on request i alone, not on the others."""
        ...


@dataclass(frozen=True)
class WorldModelAbout:
    """What a world model says of itself.

    Attributes:
        name: for logs and results.
        height, width: of the pictures it makes, in pixels.
        control_rate: actions, and pictures, per second.
        horizon: most actions that it imagines in one go; longer sequences go on from its own last picture.
        action_names: of the D columns.
        action_low, action_high: range of each column in raw units that it was trained on (q01 and q99, and the
            gripper's 0 and 1).
        fit: how pictures are brought to its size (:func:`selfflow_robotics.resizing.resize`).
        camera: the camera of the data that it was trained on; empty is each episode's first.
        extra: anything else, as plain values (JSON).
    """

    name: str
    height: int
    width: int
    control_rate: float
    horizon: int
    action_names: tuple[str, ...] = ACTION_NAMES
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    fit: Fit = "pad"
    camera: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


class WorldModel(Protocol):
    """A picture and actions in, the pictures after each action out."""

    @property
    def about(self) -> WorldModelAbout: ...

    def imagine(
        self,
        images: np.ndarray,
        actions: np.ndarray,
        instructions: Sequence[str] | None = None,
        *,
        seeds: Sequence[int],
        steps: int | None = None,
        context_level: float | None = None,
    ) -> np.ndarray:
        """The future.

        Args:
            images: ``(B, H, W, 3)`` uint8, what is seen now; resized to the model's size.
            actions: ``(B, T, D)`` raw units; T may exceed the horizon, then the model goes on from its own last
                picture, never from a true one.
            instructions: one per row; "" unless given.
            seeds: one per row; row i depends on row i of everything alone.
            steps: of the solver; the model's own unless given.
            context_level: noise level in [0, 1) that the picture it starts from is given; the model's own unless given.
                More forgets details of the context, and drifts less where the context is its own work.

        Returns:
            ``(B, T, height, width, 3)`` uint8; picture t is what is seen after action t.
        """
        ...


def refuse_other_actions(policy: PolicyAbout, model: WorldModelAbout) -> None:
    """UserError where a policy's actions are not those that a world model imagines."""
    if policy.action_names != model.action_names or policy.control_rate != model.control_rate:
        raise UserError(
            f"the policy '{policy.name}' acts by {', '.join(policy.action_names)} at {policy.control_rate:g} Hz, the "
            f"world model '{model.name}' imagines {', '.join(model.action_names)} at {model.control_rate:g} Hz"
        )
