"""What a plan counts with where a pretrained tokenizer or text encoder is not on this machine, and what it says then.

A plan for a cluster is made on a laptop. Tokenizers are replaced by their published geometry, a text encoder by the
channels that the config states; whatever stands in can neither encode nor decode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Self

import torch

from selfflow_tokenizers import load_tokenizer
from selfflow_tokenizers.published import PUBLISHED, published_tokenizer
from selfflow_tokenizers.spec import TokenizerSpec
from selfflow_tokenizers.text import TextEncoder

from ..errors import UserError
from .config import TextConfig, TrainConfig
from .parts import build_text_encoder, load_tokenizers


class StatedText:
    """A text encoder of which only channels and the longest caption are known; every caption counts as that long."""

    def __init__(self, config: TextConfig, channels: int) -> None:
        self.max_tokens = config.max_tokens
        self.values_dtype = getattr(torch, config.rounding)
        self.settings: dict[str, Any] = {"encoder": config.encoder, "layers": list(config.layers)}
        self.spec = TokenizerSpec(name=f"{config.encoder}, not here", modality="text", channels=channels)

    def count(self, texts: Sequence[str]) -> list[int]:
        """``max_tokens`` each: the most there can be."""
        return [self.max_tokens] * len(texts)

    def encode(self, texts: Sequence[str]) -> NoReturn:
        raise UserError(f"{self.settings['encoder']} is not here and cannot encode; a plan only counts its tokens")

    def to(self, device: torch.device | str) -> Self:
        return self

    def unload(self) -> None:
        pass


def planned_tokenizers(named: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Modality -> tokenizer, and a note for each whose weights are not here.

    Raises:
        UserError: as :func:`load_tokenizers`, where no published geometry can stand in.
    """
    notes = []

    def load(source: str) -> Any:
        try:
            return load_tokenizer(source)
        except UserError as error:
            if source not in PUBLISHED:  # a folder or other weights: their geometry is their own
                raise
            notes.append(f"note: {source} is counted by its published geometry: {error}")
            return published_tokenizer(source)

    return load_tokenizers(named, load)[0], notes


def planned_text_encoder(config: TrainConfig) -> tuple[TextEncoder, list[str]]:
    """The text encoder, and a note where it is not here but ``model.text_channels`` says what it would give.

    Raises:
        UserError: it is not here and nothing is said of it.
    """
    try:
        return build_text_encoder(config.text), []
    except UserError as error:
        if config.text.encoder == "bytes" or not config.model.text_channels:
            raise
        note = (
            f"note: {config.text.encoder} is counted by model.text_channels ({config.model.text_channels:,}) and "
            f"text.max_tokens ({config.text.max_tokens}): {str(error).removeprefix('text: ')}"
        )
        return StatedText(config.text, config.model.text_channels), [note]
