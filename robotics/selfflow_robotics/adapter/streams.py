"""Tokens of a robot's world: the places of video, action and state tokens in space and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from selfflow_mm.tokens import TokenStream

if TYPE_CHECKING:
    from .spec import RobotSpec

__all__ = ["VideoTokens", "action_stream", "from_changes", "state_stream", "to_changes", "video_positions"]

#: What tokens of frames after the present hold: the frame itself, or what has changed since the present.
VideoTokens = Literal["frames", "changes"]


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


def to_changes(values: Tensor, present: int) -> Tensor:
    """Tokens ``(B, N, C)`` of a clip, ``present`` of them for each frame of latents -> the same, each frame but the
    first as its difference from the first: where a camera stands still most of them are zero.
    """
    first, rest = values[:, None, :present], values[:, present:].unflatten(1, (values.shape[1] // present - 1, present))
    return torch.cat([values[:, :present], (rest - first).flatten(1, 2)], dim=1)


def from_changes(values: Tensor, present: int) -> Tensor:
    """The inverse of :func:`to_changes`."""
    first, rest = values[:, None, :present], values[:, present:].unflatten(1, (values.shape[1] // present - 1, present))
    return torch.cat([values[:, :present], (rest + first).flatten(1, 2)], dim=1)
