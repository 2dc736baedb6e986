"""What a robot model sees and gives, in numbers: the file ``robot.json`` beside its weights.

Everything that tells raw units from a model's is here: the chain of transforms and the statistics that it was made of.
A folder without it is no policy, so normalisation cannot be forgotten.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from selfflow_mm.errors import UserError

from ..actions.relative import RelativeTo, from_start, from_step, reach
from ..actions.transform import Transform, transform_from_dict
from ..resizing import Fit, resize
from ..robot_episode import ACTION_NAMES, GRIPPER
from ..statistics import Statistics, missing_statistics
from .streams import VideoTokens

__all__ = ["FILE_NAME", "FORMAT", "VERSION", "RobotSpec"]

FILE_NAME, FORMAT, VERSION = "robot.json", "selfflow-robot", 1


@dataclass(frozen=True)
class RobotSpec:
    """Time: second 0 is the present. Action k acts from second k / control_rate on, frame j is seen at second
    j / video_rate, the state was measured at second 0.

    Attributes:
        horizon: H, actions of a chunk.
        control_rate: actions per second.
        video_rate: frames per second; a multiple of the control rate, or the same.
        height, width, fit: of the pictures, and how others are brought to it.
        action_names, state_names: of the columns; no state names where the model takes no state.
        actions: raw actions <-> what the model sees.
        states: the same for states, or None.
        statistics: of the data it was trained on.
        robot: its name.
        tasks: what it was trained for (``tasks.TASKS``).
        state_optional: was it trained without the state, too, so that it can act on pictures alone?
        camera: of the data it was trained on, where one was named; "" is each episode's first.
        relative_to: the model sees each action's motion from the ``step`` before, or from where the ``chunk`` begins
            (:mod:`..actions.relative`).
        video_tokens: of what follows the present the model sees ``frames``, or ``changes`` since the present
            (:func:`.streams.to_changes`).
    """

    horizon: int
    control_rate: float
    video_rate: float
    height: int
    width: int
    fit: Fit
    action_names: tuple[str, ...]
    state_names: tuple[str, ...]
    actions: Transform
    states: Transform | None
    statistics: Statistics
    robot: str = ""
    tasks: tuple[str, ...] = ()
    state_optional: bool = True
    camera: str = ""
    relative_to: RelativeTo = "step"
    video_tokens: VideoTokens = "frames"

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise UserError(f"a robot model's horizon is at least 1 action, got {self.horizon}")
        for name in ("control_rate", "video_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UserError(f"{name} is a number per second above 0, got {getattr(self, name)}")
        ratio = self.video_rate / self.control_rate
        if ratio < 1 or abs(ratio - round(ratio)) > 1e-6:
            raise UserError(
                f"video_rate {self.video_rate:g} is no whole multiple of the control rate {self.control_rate:g}, so "
                "frames would not fall on actions"
            )
        if (self.states is None) != (not self.state_names):
            raise UserError("a robot model that takes a state has names and a transform of it, others have neither")
        if self.relative_to not in ("step", "chunk"):
            raise UserError(f"relative_to is 'step' or 'chunk', got '{self.relative_to}'")
        if self.video_tokens not in ("frames", "changes"):
            raise UserError(f"video_tokens is 'frames' or 'changes', got '{self.video_tokens}'")
        if self.relative_to == "chunk" and self.action_names[: len(ACTION_NAMES)] != ACTION_NAMES:
            raise UserError(
                f"relative_to=chunk sums motions ({', '.join(ACTION_NAMES[:GRIPPER])}), and the actions of these data "
                f"are {', '.join(self.action_names)}; set relative_to=step"
            )

    @property
    def frames_per_action(self) -> int:
        return round(self.video_rate / self.control_rate)

    def frames(self, actions: int) -> int:
        """Frames of a clip that shows the present and what follows each of ``actions`` actions."""
        return 1 + actions * self.frames_per_action

    def after_each_action(self, actions: int) -> np.ndarray:
        """``(actions,)`` places of the frames that are seen when each action is done."""
        return self.frames_per_action * np.arange(1, actions + 1)

    def pictures(self, images: np.ndarray) -> np.ndarray:
        """``(..., h, w, 3)`` uint8 of any size -> the model's size."""
        return resize(images, (self.height, self.width), self.fit)

    def seen_actions(self, raw: np.ndarray) -> np.ndarray:
        """Raw actions ``(..., T, D)``, T of them from the chunk's first on -> what the model sees, float32."""
        return self.seen_chunk(self.normalised_actions(raw))

    def normalised_actions(self, raw: np.ndarray) -> np.ndarray:
        """Raw actions ``(..., D)``, each for itself -> normalised, float32."""
        return _rowwise(self.actions.forward, raw, len(self.action_names), "actions")

    def seen_chunk(self, normalised: np.ndarray) -> np.ndarray:
        """Normalised actions ``(..., T, D)`` of a chunk from its first on -> what the model sees."""
        if self.relative_to == "step":
            return normalised
        return from_start(normalised - self._still, GRIPPER, reach(self.horizon))

    def raw_actions(self, seen: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`seen_actions`; a gripper is brought into [0, 1], which the robot takes."""
        if self.relative_to == "chunk":
            seen = from_step(np.asarray(seen, np.float32), GRIPPER, reach(self.horizon)) + self._still
        raw = _rowwise(self.actions.inverse, seen, len(self.action_names), "actions")
        if "gripper" in self.action_names:
            column = self.action_names.index("gripper")
            raw[..., column] = raw[..., column].clip(0, 1)
        return raw

    @cached_property
    def _still(self) -> np.ndarray:
        """``(D,)`` what normalisation makes of holding still; 0 where nothing is summed."""
        still = self.normalised_actions(np.zeros(len(self.action_names)))
        still[GRIPPER:] = 0
        return still

    def seen_states(self, raw: np.ndarray) -> np.ndarray:
        """Raw states ``(..., S)`` -> what the model sees, float32."""
        if self.states is None:
            raise UserError("this model takes no state")
        return _rowwise(self.states.forward, raw, len(self.state_names), "states")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "robot": self.robot,
            "tasks": list(self.tasks),
            "state_optional": self.state_optional,
            "horizon": self.horizon,
            "control_rate": self.control_rate,
            "video_rate": self.video_rate,
            "height": self.height,
            "width": self.width,
            "fit": self.fit,
            "camera": self.camera,
            "relative_to": self.relative_to,
            "video_tokens": self.video_tokens,
            "action_names": list(self.action_names),
            "state_names": list(self.state_names),
            "actions": self.actions.to_dict(),
            "states": self.states.to_dict() if self.states else None,
            "statistics": self.statistics.to_dict(),
        }

    def save(self, folder: Path) -> None:
        """Write ``robot.json``, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{FILE_NAME}.tmp"
        beside.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        os.replace(beside, folder / FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> RobotSpec:
        """Read ``robot.json``.

        Raises:
            UserError: it is missing, or its statistics are, or it cannot be understood.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            raise UserError(
                f"{folder} is no robot model: it has no {FILE_NAME}; make one with 'selfflow-mm finetune-robot'"
            )
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as JSON ({error})") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise UserError(f"{path} describes no robot model: its format is not '{FORMAT}'")
        if data.get("version") != VERSION:
            raise UserError(f"{path}: version {data.get('version')}; this program reads version {VERSION}")
        if not data.get("statistics"):
            raise missing_statistics(f"{path} holds no statistics, so its actions have no units")
        try:
            states = data["states"]
            return cls(
                horizon=int(data["horizon"]),
                control_rate=float(data["control_rate"]),
                video_rate=float(data["video_rate"]),
                height=int(data["height"]),
                width=int(data["width"]),
                fit=data["fit"],
                action_names=tuple(data["action_names"]),
                state_names=tuple(data["state_names"]),
                actions=transform_from_dict(data["actions"]),
                states=transform_from_dict(states) if states else None,
                statistics=Statistics.from_dict(data["statistics"], str(path)),
                robot=str(data["robot"]),
                tasks=tuple(data["tasks"]),
                state_optional=bool(data["state_optional"]),
                camera=str(data.get("camera", "")),
                relative_to=data.get("relative_to", "step"),
                video_tokens=data.get("video_tokens", "frames"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not whole: {error!r}") from error


def _rowwise(change: Any, values: np.ndarray, width: int, what: str) -> np.ndarray:
    """A transform of ``(T, D)`` on ``(..., D)``, to float32."""
    array = np.asarray(values, np.float32)
    if array.shape[-1] != width:
        raise UserError(f"{what} have {width} numbers each, got {array.shape[-1]}")
    return np.asarray(change(array.reshape(-1, width)), np.float32).reshape(array.shape).copy()
