"""Batches of robot tasks: which question a step asks, how long its clips are, and the windows it asks it of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from selfflow_mm.flow.objectives import Batch
from selfflow_mm.randomness import Randomness, pick
from selfflow_mm.tokens import TokenStream

from ..adapter.spec import RobotSpec
from ..adapter.streams import action_stream, state_stream, to_changes, video_positions
from ..adapter.tasks import ACTION, STATE, TASKS, VIDEO
from .config import FinetuneConfig
from .windows import TokenWindows, WindowSource

__all__ = ["RobotBatches", "batch_of"]


class RobotBatches:
    """An endless, resumable sequence of batches; a :class:`selfflow_mm.training.state.BatchSource`.

    The task, the number of actions and whether the state is left out are functions of (seed, step) and the same on all
    processes; windows come from the source, each process taking its share.

    Args:
        config: shares of tasks and the rest.
        source: of windows.
        spec: of the model.
        tokenizer: of pictures; for the places of their tokens.
        text_encoder: instructions -> token stream.
        share: windows of a step for this process.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        source: WindowSource,
        spec: RobotSpec,
        tokenizer: Any,
        text_encoder: Any,
        share: int,
    ) -> None:
        self.config, self.source, self.spec, self.share = config, source, spec, share
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self.random = Randomness(config.run.seed)
        self._names: list[str] = []

    def at(self, step: int) -> tuple[str, str, Batch]:
        """The batch of a step."""
        task = self._task(step)
        question, horizon = TASKS[task], self.spec.horizon
        if question.actions != "generated" and horizon > 1 and self._chance("shorter", step) < self.config.data.shorter:
            horizon = 1 + self.random.integer("horizon", step, horizon - 1)
        state = self._chance("state", step) >= self.config.data.state_dropout
        windows = self.source.take(self.share, horizon, question.video != "present")
        self._names = list(windows.names)
        dropped = self.random.uniform("caption", step, windows.ids)[:, 0] < self.config.objective.caption_dropout
        captions = ["" if drop else text for drop, text in zip(dropped.tolist(), windows.instructions, strict=True)]
        batch = batch_of(task, windows, captions, self.spec, self.tokenizer, self.text_encoder, state)
        assert isinstance(batch.text, TokenStream)
        return "robot", task, replace(batch, text=batch.text.padded_to_multiple(self.config.text.pad_to))

    def numbers(self, name: str, batch: Batch) -> list[Any]:
        """Episodes and steps of the batch given last, for messages."""
        return self._names

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.source.load_state_dict(state)

    def _task(self, step: int) -> str:
        shares = {name: self.config.tasks[name] for name in self.config.trained}
        return pick(self._chance("task", step), shares)

    def _chance(self, purpose: str, step: int) -> float:
        return float(self.random.uniform(purpose, step, torch.zeros(1, dtype=torch.int64)))


def batch_of(
    task: str,
    windows: TokenWindows,
    captions: list[str],
    spec: RobotSpec,
    tokenizer: Any,
    text_encoder: Any,
    state: bool = True,
) -> Batch:
    """Windows as a batch of one task; ``state`` False leaves the state out."""
    question = TASKS[task]
    frames = 1 if question.video == "present" else spec.frames(windows.actions.shape[1])
    places = video_positions(tokenizer, spec, frames)
    video = windows.video
    if spec.video_tokens == "changes":
        video = to_changes(video, len(video_positions(tokenizer, spec, 1)))
    streams: dict[str, TokenStream] = {VIDEO: TokenStream.dense(video, places)}
    if question.actions != "absent":
        streams[ACTION] = action_stream(windows.actions, spec.control_rate)
    state = state and windows.states is not None
    if question.state and state:
        assert windows.states is not None
        streams[STATE] = state_stream(windows.states)
    return Batch(streams, question.conditions(state=state), text_encoder.encode(captions), windows.ids)
