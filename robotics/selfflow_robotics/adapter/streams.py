"""Tokens of a robot's world: the places of video, action and state tokens in space and time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selfflow_mm.tokens import TokenStream

from .spec import RobotSpec

__all__ = ["action_stream", "state_stream", "video_positions"]


def action_stream(values: Tensor, control_rate: float) -> TokenStream:
    """Actions ``(B, H, D)`` as a stream of H tokens; token k stands at second k / control_rate, the k-th in order."""
    places = torch.zeros(values.shape[1], 4)
    order = torch.arange(values.shape[1], dtype=torch.float32)
    places[:, 0], places[:, 3] = order / control_rate, order
    return TokenStream.dense(values, places)


def state_stream(values: Tensor) -> TokenStream:
    """States ``(B, S)`` of the present as one token each, at second 0."""
    return TokenStream.dense(values[:, None], torch.zeros(1, 4))


def video_positions(tokenizer: Any, spec: RobotSpec, frames: int) -> Tensor:
    """``(N, 4)`` places of a clip of ``frames`` frames."""
    return tokenizer.positions(frames, spec.height, spec.width, spec.video_rate)
