"""The one protocol of tokenizers: what everything else may rely on, whatever the codec inside is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import torch

from .spec import TokenizerSpec
from .stream import TokenStream


@runtime_checkable
class Tokenizer(Protocol):
    """Media to token streams and back. :class:`VideoTokenizer` and :class:`AudioTokenizer` are the two there are.

    Attributes:
        spec: all that a model needs to know of it.
        device: where its weights are; media may be anywhere, tokens come out there.
    """

    spec: TokenizerSpec

    @property
    def device(self) -> torch.device: ...

    def to(self, device: torch.device | str) -> Self:
        """Move the weights; returns itself."""
        ...

    def encode(self, media: Sequence[Any]) -> TokenStream:
        """Media of any sizes and lengths -> one row each, padded to the longest."""
        ...

    def decode(self, stream: TokenStream) -> list[Any]:
        """One medium per sample, of the size that was encoded."""
        ...

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that ``from_pretrained`` and ``load_tokenizer`` read."""
        ...

    @classmethod
    def from_pretrained(cls, source: str | Path, *, download: bool = False) -> Self:
        """Load from a folder or a hub id."""
        ...
