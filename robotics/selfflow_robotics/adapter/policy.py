"""A robot model as a policy: the present picture, the instruction and the state in, a chunk of actions out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from selfflow_mm.errors import UserError
from selfflow_mm.tokens import TokenStream

from ..interfaces import PolicyAbout, Request
from .model import RobotModel
from .streams import action_stream, state_stream, video_positions
from .tasks import ACTION, STATE, TASKS, VIDEO

__all__ = ["FlowPolicy"]


class FlowPolicy:
    """Actions by flow matching; a :class:`selfflow_robotics.interfaces.ChunkPolicy`.

    Args:
        model: see :class:`RobotModel`.
        steps: of the solver; the model's own unless given.
        video: what becomes of the future frames while actions are denoised: ``absent`` has no tokens of them (fastest),
            ``denoised`` makes them too, and a number in (0, 1] denoises them down to that level and keeps them there:
            near 1 they stay noise, which is often best (mimic-video).
        context_level: noise level in [0, 1) of the present picture.
        state: ``given`` where there is one; ``absent`` acts on the picture alone.
        guidance: of the instruction; 1 is none.

    Raises:
        UserError: the model was not trained for it, or a setting out of range.
    """

    def __init__(
        self,
        model: RobotModel,
        *,
        steps: int | None = None,
        video: Literal["absent", "denoised"] | float = "absent",
        context_level: float = 0.0,
        state: Literal["given", "absent"] = "given",
        guidance: float = 1.0,
    ) -> None:
        if isinstance(video, str) and video not in ("absent", "denoised"):
            raise UserError(f"video is absent, denoised, or a noise level in (0, 1], not '{video}'")
        if not isinstance(video, str) and not 0 < video <= 1:
            raise UserError(f"the level that video is kept at lies in (0, 1], got {video}")
        if not 0 <= context_level < 1:
            raise UserError(f"context_level lies in [0, 1), got {context_level}")
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise UserError(f"a solver takes a whole number of steps, at least one, got {steps}")
        if not math.isfinite(guidance):
            raise UserError(f"guidance is a finite number, 1 for none, got {guidance}")
        if state not in ("given", "absent"):
            raise UserError(f"state is given or absent, not '{state}'")
        if state == "absent" and model.spec.state_names and not model.spec.state_optional:
            raise UserError("this model always saw the state in training, so it cannot act without; state=given")
        self.task = "policy" if video == "absent" else "joint"
        model.wants(self.task)
        self.model, self.steps, self.video = model, steps, video
        self.context_level, self.guidance = context_level, guidance
        self.sees_state = state == "given" and bool(model.spec.state_names)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,
        steps: int | None = None,
        video: Literal["absent", "denoised"] | float = "absent",
        context_level: float = 0.0,
        state: Literal["given", "absent"] = "given",
        guidance: float = 1.0,
    ) -> FlowPolicy:
        """Load the folder that ``finetune-robot`` wrote (a run, or its ``model``); settings as in the class.

        Raises:
            UserError: no such folder, no robot model, or no statistics in it.
        """
        model = RobotModel.from_pretrained(folder, device=device, precision=precision, compile=compile)
        return cls(model, steps=steps, video=video, context_level=context_level, state=state, guidance=guidance)

    @property
    def about(self) -> PolicyAbout:
        spec = self.model.spec
        return PolicyAbout(
            name=self.model.name,
            horizon=spec.horizon,
            control_rate=spec.control_rate,
            action_names=spec.action_names,
            state_names=spec.state_names if self.sees_state else (),
            needs_state=self.sees_state and not spec.state_optional,
            extra={
                "weights": self.model.digest,
                "steps": self.steps or self.model.steps,
                "video": self.video,
                "context_level": self.context_level,
                "guidance": self.guidance,
                "image": [spec.height, spec.width],
                "fit": spec.fit,
                "robot": spec.robot,
                "dataset": spec.statistics.dataset,
            },
        )

    def chunks(self, requests: Sequence[Request]) -> np.ndarray:
        """``(B, H, D)`` float32 in raw units.

        Raises:
            UserError: a state of another width, or none where the model needs one.
        """
        if not requests:
            return np.empty((0, self.model.spec.horizon, len(self.model.spec.action_names)), np.float32)
        return np.stack([actions for actions, _ in self._answers(requests)])

    def futures(self, requests: Sequence[Request]) -> np.ndarray:
        """``(B, H, height, width, 3)`` uint8, B at least 1: what the policy imagines after each action of its chunk.

        Raises:
            UserError: its pictures are not denoised, or as of :meth:`chunks`.
        """
        if self.video != "denoised":
            raise UserError(f"a policy imagines what it does with video=denoised, and video is {self.video}")
        spec, found = self.model.spec, self._answers(requests)
        films = self.model.decode(torch.stack([video for _, video in found]), spec.frames(spec.horizon))
        return films[:, spec.after_each_action(spec.horizon)]

    def _answers(self, requests: Sequence[Request]) -> list[tuple[np.ndarray, torch.Tensor]]:
        """For each request the chunk ``(H, D)`` in raw units and the tokens ``(N, C)`` of the pictures."""
        found: dict[int, tuple[np.ndarray, torch.Tensor]] = {}
        for with_state in (True, False):  # a batch has states in all rows or in none
            chosen = [i for i, r in enumerate(requests) if self._has_state(r) == with_state]
            if chosen:
                values = self._solved([requests[i] for i in chosen], with_state)
                actions = self.model.spec.raw_actions(values[ACTION].float().cpu().numpy())
                found.update(zip(chosen, zip(actions, values[VIDEO], strict=True), strict=True))
        return [found[i] for i in range(len(requests))]

    def _has_state(self, request: Request) -> bool:
        spec, state = self.model.spec, request.observation.state
        if not self.sees_state:
            return False
        if state is None:
            if not spec.state_optional:
                raise UserError(f"this policy needs a state of {len(spec.state_names)} numbers ({spec.state_names})")
            return False
        if len(state) != len(spec.state_names):
            raise UserError(
                f"the state has {len(state)} numbers, this policy's has {len(spec.state_names)}: "
                f"{', '.join(spec.state_names)}"
            )
        return True

    def _solved(self, requests: Sequence[Request], with_state: bool) -> dict[str, torch.Tensor]:
        """Modality -> values of its tokens."""
        model, spec = self.model, self.model.spec
        seeds = [r.seed for r in requests]
        present = model.encode(np.stack([spec.pictures(r.observation.image)[None] for r in requests]))
        streams: dict[str, TokenStream] = {}
        clean: dict[str, torch.Tensor] = {}
        if self.video == "absent":
            places = video_positions(model.video, spec, 1)
            streams[VIDEO] = TokenStream.dense(model.noise(VIDEO, seeds, *present.shape[1:]), places)
            clean[VIDEO] = present
        else:
            streams[VIDEO], clean[VIDEO] = model.clip(present, spec.horizon, seeds)
        noise = model.noise(ACTION, seeds, spec.horizon, len(spec.action_names))
        streams[ACTION] = action_stream(noise, spec.control_rate)
        if with_state:
            states = np.stack([np.asarray(r.observation.state, np.float32) for r in requests])
            streams[STATE] = state_stream(torch.from_numpy(spec.seen_states(states)).to(model.device))
            clean[STATE] = streams[STATE].values
        floor = {VIDEO: float(self.video)} if not isinstance(self.video, str) else {}
        return model.solve(
            TASKS[self.task].conditions(self.context_level, with_state),
            streams,
            clean,
            [r.observation.instruction for r in requests],
            steps=self.steps,
            floor=floor,
            guidance=self.guidance,
        )
