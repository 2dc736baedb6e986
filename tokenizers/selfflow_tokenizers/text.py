"""A text encoder without weights and without vocabulary files.

A text is lower-cased and split at white space into words; a word of more than 12 UTF-8 bytes is cut
into pieces. Each piece becomes one token: the sum over its bytes of a fixed pseudo-random code
e(place, byte), scaled to unit variance. Different words are nearly orthogonal, and a word with one
wrong letter stays near the right one, which a hash of the whole word would not give. One end token
closes every text, so the empty text (the caption of classifier-free guidance) is one token.

The codes are standard normal numbers: SplitMix64 (Steele, Lea and Flood 2014) of the counter
(place, byte, channel), then Box and Muller's transform in float64. They depend on nothing but this
file, so a model trained today reads the same tokens with any later version of any library.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from .errors import UserError
from .spec import TokenizerSpec
from .stream import TokenStream

#: Bytes of a word that one token holds.
PIECE_BYTES = 12
_END = 256  # a byte value that no text has: the end token's only "byte"
_INNER = 257  # marks a piece that continues a long word, so that it differs from a word of its own
_VALUES = 258


class TextEncoder(Protocol):
    """What the model's trainer and sampler need of a text encoder.

    Attributes:
        spec: ``modality`` text; the name tells encoders with different values apart.
        max_tokens: the most tokens of a text.
        values_dtype: the type that values are exact in, though they are given as float32.
    """

    spec: TokenizerSpec
    max_tokens: int
    values_dtype: torch.dtype

    @property
    def settings(self) -> dict[str, Any]:
        """What :func:`load_text_encoder` makes the same encoder of, as JSON can hold it."""
        ...

    def encode(self, texts: Sequence[str]) -> TokenStream:
        """Texts -> values float32 ``(B, N, channels)`` on the CPU, positions ``(0, 0, 0, index)``, at least one token
        each; short rows end in padding.
        """
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        ...

    def to(self, device: torch.device | str) -> Self: ...

    def unload(self) -> None:
        """Free what can be read again."""
        ...


def load_text_encoder(encoder: str = "bytes", *, download: bool = False, **settings: Any) -> TextEncoder:
    """A text encoder by name.

    Args:
        encoder: ``bytes``, or folder or hub id of an encoder of transformers.
        download: fetch it from the hub where it is not cached. Nothing is fetched unless asked for.
        settings: ``max_tokens``, and for encoders of transformers those of
            :class:`~selfflow_tokenizers.text_pretrained.PretrainedTextEncoder`.

    Raises:
        UserError: there is none, or a setting that the bundled one does not have.
    """
    if encoder != "bytes":
        from .text_pretrained import PretrainedTextEncoder

        return PretrainedTextEncoder.from_pretrained(encoder, download=download, **settings)
    unknown = sorted(set(settings) - {"max_tokens", "channels"})
    if unknown:
        raise UserError(f"the text encoder 'bytes' has no {' and no '.join(unknown)}; those of transformers have")
    return ByteTextEncoder(**settings)


class ByteTextEncoder:
    """Texts to token streams.

    Args:
        channels: size of a token's value.
        max_tokens: a longer text is cut to so many tokens, the end token included.
    """

    def __init__(self, channels: int = 192, max_tokens: int = 256) -> None:
        if channels < 1 or max_tokens < 1:
            raise UserError(f"a text encoder needs channels and max_tokens of at least 1, got {channels}, {max_tokens}")
        self.max_tokens, self.values_dtype = max_tokens, torch.float32
        self.spec = TokenizerSpec(name=f"bytes-v1-{channels}", modality="text", channels=channels)

    @property
    def settings(self) -> dict[str, Any]:
        return {"encoder": "bytes", "max_tokens": self.max_tokens}

    def to(self, device: torch.device | str) -> Self:
        """Nothing moves: there are no weights."""
        return self

    def unload(self) -> None:
        pass

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self._pieces(text)) for text in texts]

    def encode(self, texts: Sequence[str]) -> TokenStream:
        """Texts -> values ``(B, N, channels)``, positions ``(0, 0, 0, index)``; short rows end in padding."""
        check_texts(texts)
        channels = self.spec.channels
        rows = ([_value(channels, tuple(piece)) for piece in self._pieces(text)] for text in texts)
        return as_stream([torch.from_numpy(np.stack(row)) for row in rows])

    def _pieces(self, text: str) -> list[list[int]]:
        return [*split(text)[: self.max_tokens - 1], [_END]]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what is no list of texts."""
    if isinstance(texts, str):
        raise UserError("the text encoder takes a list of texts; put the one text into a list")
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"the text encoder takes texts, got {type(text).__name__}")


def as_stream(values: Sequence[Tensor]) -> TokenStream:
    """Values ``(N, C)`` of each text -> one stream; tokens are counted by their index."""
    if not values:
        return TokenStream.pad([])  # refuses
    padded = torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True)
    index = torch.arange(padded.shape[1]).expand(padded.shape[:2])
    valid = index < torch.tensor([[len(value)] for value in values])
    positions = torch.zeros(*padded.shape[:2], 4)
    positions[..., 3] = index * valid
    return TokenStream(padded, positions, valid.long() - 1, full=bool(valid.all()))


def split(text: str) -> list[list[int]]:
    """The pieces of a text, each a list of at most 12 byte values; a continued piece has a mark in front."""
    pieces = []
    for word in text.lower().split():
        data = list(word.encode("utf-8", errors="replace"))
        pieces.append(data[:PIECE_BYTES])
        pieces += [[_INNER, *data[i : i + PIECE_BYTES]] for i in range(PIECE_BYTES, len(data), PIECE_BYTES)]
    return pieces


@lru_cache(maxsize=1 << 14)
def _value(channels: int, piece: tuple[int, ...]) -> np.ndarray:
    """A piece's value ``(channels,)`` float32: words come again and again."""
    codes = _codes(channels)[np.arange(len(piece)), piece]
    return (codes.sum(axis=0) / len(piece) ** 0.5).astype(np.float32)


@lru_cache(maxsize=4)
def _codes(channels: int) -> np.ndarray:
    """``(places, byte values, channels)`` float64 standard normal numbers."""
    shape = (PIECE_BYTES + 1, _VALUES, channels)
    counter = np.arange(np.prod(shape), dtype=np.uint64).reshape(shape)
    # 24 bits of channel keep a code's first channels the same whatever their number is.
    place, byte, channel = np.unravel_index(counter.astype(np.int64), shape)
    key = ((place * _VALUES + byte).astype(np.uint64) << np.uint64(24)) + channel.astype(np.uint64)
    first, second = (_uniform(key * np.uint64(2) + np.uint64(i)) for i in (0, 1))
    return np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second)


def _uniform(counter: np.ndarray) -> np.ndarray:
    """SplitMix64's output for each counter, as float64 in (0, 1]."""
    with np.errstate(over="ignore"):
        z = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)).astype(np.float64) + 1.0) * 2.0**-53
