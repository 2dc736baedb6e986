"""A robot model as a world model: a picture and actions in, the pictures after them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from selfflow_mm.errors import UserError

from ..interfaces import WorldModelAbout
from .model import RobotModel
from .streams import action_stream
from .tasks import ACTION, TASKS, VIDEO

__all__ = ["FlowWorldModel"]

#: Where a long imagination goes on from its own last picture, the seed of the next part is another one.
_NEXT = 0x9E3779B97F4A7C15


class FlowWorldModel:
    """Pictures by flow matching; a :class:`selfflow_robotics.interfaces.WorldModel`.

    Args:
        model: see :class:`RobotModel`.
        steps: of the solver; the model's own unless given.
        context_level: noise level in [0, 1) at which the model is handed the picture it starts from. Training had
            levels up to ``objective.given_levels.video`` (0.2 as in the paper).
        chunk: actions imagined in one go, at most the model's horizon; the horizon unless given.

    Raises:
        UserError: the model was not trained as a world model, or a setting out of range.
    """

    def __init__(
        self, model: RobotModel, *, steps: int | None = None, context_level: float = 0.0, chunk: int | None = None
    ) -> None:
        model.wants("world")
        if chunk is not None and not 1 <= chunk <= model.spec.horizon:
            raise UserError(f"a chunk has 1 to {model.spec.horizon} actions (the model's horizon), got {chunk}")
        if steps is not None and steps < 1:
            raise UserError(f"a solver takes at least one step, got {steps}")
        if not 0 <= context_level < 1:
            raise UserError(f"context_level lies in [0, 1), got {context_level}")
        self.model, self.steps, self.context_level = model, steps, context_level
        self.chunk = chunk or model.spec.horizon

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
        steps: int | None = None,
        context_level: float = 0.0,
        chunk: int | None = None,
    ) -> FlowWorldModel:
        """Load the folder that ``finetune-robot`` wrote; settings as in the class.

        Raises:
            UserError: no such folder, no robot model, or no statistics in it.
        """
        model = RobotModel.from_pretrained(folder, device=device, precision=precision, compile=compile)
        return cls(model, steps=steps, context_level=context_level, chunk=chunk)

    @property
    def about(self) -> WorldModelAbout:
        spec = self.model.spec
        columns = spec.statistics.actions
        grips = [name == "gripper" for name in spec.action_names]
        return WorldModelAbout(
            name=self.model.name,
            height=spec.height,
            width=spec.width,
            control_rate=spec.control_rate,
            horizon=spec.horizon,
            action_names=spec.action_names,
            action_low=tuple(0.0 if grip else low for grip, low in zip(grips, columns.q01, strict=True)),
            action_high=tuple(1.0 if grip else high for grip, high in zip(grips, columns.q99, strict=True)),
            fit=spec.fit,
            camera=spec.camera,
            extra={
                "weights": self.model.digest,
                "steps": self.steps or self.model.steps,
                "context_level": self.context_level,
                "chunk": self.chunk,
                "robot": spec.robot,
                "dataset": spec.statistics.dataset,
            },
        )

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
        """See :class:`selfflow_robotics.interfaces.WorldModel`.

        The context is what the model decoded: each part but the first starts from the last picture of the one before,
        through the tokenizer, as a picture from outside would be.

        Raises:
            UserError: shapes that do not fit each other, actions that are not finite, or a level out of range.
        """
        images, actions = np.asarray(images), np.asarray(actions, np.float32)
        rows = len(images)
        instructions = [""] * rows if instructions is None else list(instructions)
        level = self.context_level if context_level is None else context_level
        self._check(images, actions, instructions, seeds, level)
        parts, now = [], images
        for number, begin in enumerate(range(0, actions.shape[1], self.chunk)):
            mixed = [(seed + number * _NEXT) % 2**63 for seed in seeds]
            part = self._part(now, actions[:, begin : begin + self.chunk], instructions, mixed, steps, level)
            parts.append(part)
            now = part[:, -1]
        return np.concatenate(parts, axis=1)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """``(B, h, w, 3)`` uint8 -> the same through the tokenizer ``(B, height, width, 3)``: the best that any model
        of these latents could do.
        """
        return self.model.decode(self.model.encode(np.asarray(images)[:, None]), 1)[:, 0]

    def _part(
        self,
        images: np.ndarray,
        actions: np.ndarray,
        instructions: Sequence[str],
        seeds: Sequence[int],
        steps: int | None,
        level: float,
    ) -> np.ndarray:
        model, spec, count = self.model, self.model.spec, actions.shape[1]
        stream, clean = model.clip(model.encode(images[:, None]), count, seeds)
        seen = torch.from_numpy(spec.seen_actions(actions)).to(model.device)
        streams = {VIDEO: stream, ACTION: action_stream(seen, spec.control_rate)}
        values = model.solve(
            TASKS["world"].conditions(level),
            streams,
            {VIDEO: clean, ACTION: seen},
            instructions,
            steps=self.steps if steps is None else steps,
        )
        return model.decode(values[VIDEO], spec.frames(count))[:, spec.after_each_action(count)]

    def _check(
        self,
        images: np.ndarray,
        actions: np.ndarray,
        instructions: Sequence[str],
        seeds: Sequence[int],
        level: float,
    ) -> None:
        width = len(self.model.spec.action_names)
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise UserError(f"images are (B, H, W, 3) of uint8, got {images.shape} of {images.dtype}")
        if actions.ndim != 3 or actions.shape[2] != width or actions.shape[1] < 1:
            raise UserError(f"actions are (B, T, {width}) with T at least 1, got {actions.shape}")
        if not len(images) == len(actions) == len(instructions) == len(seeds):
            raise UserError(
                f"{len(images)} images, {len(actions)} rows of actions, {len(instructions)} instructions and "
                f"{len(seeds)} seeds do not go together"
            )
        if not np.all(np.isfinite(actions)):
            raise UserError("actions hold NaN or infinity")
        if not 0 <= level < 1:
            raise UserError(f"context_level lies in [0, 1), got {level}")
