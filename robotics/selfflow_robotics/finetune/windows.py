"""What batches are made of, from wherever it comes: windows with their pictures as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

__all__ = ["TokenWindows", "WindowSource"]


@dataclass(frozen=True)
class TokenWindows:
    """B windows as the model sees them.

    Attributes:
        video: ``(B, N, C)`` token values of the clip, or of its first frame where no more was asked for.
        actions: ``(B, H, D)`` normalised.
        states: ``(B, S)`` normalised, of the present; None where the model takes none.
        instructions: B texts.
        ids: ``(B,)`` int64: numbers that the windows' randomness is a function of.
        names: for messages: ``episode@step``.
    """

    video: Tensor
    actions: Tensor
    states: Tensor | None
    instructions: Sequence[str]
    ids: Tensor
    names: Sequence[str]


class WindowSource(Protocol):
    """Windows in a seeded order, each process with its own share, and a place to go on from."""

    def take(self, count: int, actions: int, clip: bool) -> TokenWindows:
        """The next ``count`` windows of this process, with ``actions`` actions and either the clip that shows them or
        the first frame alone.
        """
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
