"""What a comparison of tokenizers compares: tokenizers, and yardsticks that are none."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor
from torch.nn import functional as F

from selfflow_tokenizers import TokenizerSpec, TokenStream
from selfflow_tokenizers.grids import samples
from selfflow_tokenizers.media import Audio, Image, Media, Video

from ..data.resampling import mix_channels, resample
from ..errors import UserError
from ..weights.tokenizers import named_tokenizer
from .griffin_lim import ITERATIONS, GriffinLim

Kind = Literal["picture", "sound"]
#: Names that stand for a yardstick, with what may follow the colon.
YARDSTICKS = {"griffin-lim": "iterations", "jpeg": "quality"}


@dataclass(frozen=True)
class Size:
    """How much a code holds. ``values`` counts numbers (0 where the code is bytes), ``bytes`` those of a coded file."""

    tokens: int = 0
    values: int = 0
    bytes: int = 0


class Contestant(Protocol):
    """Media to a code and back. ``prepare`` and ``finish`` are conversions that do not count as its work.

    Attributes:
        name: as the user named it.
        kind: ``picture`` (images and videos) or ``sound``.
        about: one line of what it is.
        facts: what JSON should hold of it.
        parameters: numbers of weights; 0 for a yardstick.
    """

    name: str
    kind: Kind
    about: str
    facts: dict[str, Any]
    parameters: int

    def prepare(self, medium: Media) -> Media:
        """The medium at the rate and with the channels it takes."""
        ...

    def encode(self, media: Sequence[Any]) -> Any:
        """Prepared media -> a code."""
        ...

    def decode(self, code: Any) -> list[Any]:
        """A code -> media, one for each that was encoded."""
        ...

    def finish(self, output: Any, original: Media) -> Media:
        """An output at the original's rate, with its channels and length."""
        ...

    def size(self, code: Any) -> Size:
        """How much the code of several media holds."""
        ...

    def latents(self, code: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Values ``(N, C)`` and positions ``(N, 4)`` of each medium; nothing where there are no latents."""
        ...


class _Tokenizer:
    """What the tokenizers of both kinds share."""

    def __init__(self, name: str, tokenizer: Any, device: torch.device) -> None:
        self.name, self.about = name, _facts_of(tokenizer.spec)
        self.tokenizer = tokenizer.to(device)
        self.spec = tokenizer.spec
        self.facts: dict[str, Any] = {"spec": self.spec.to_dict()}
        self.parameters = sum(p.numel() for p in tokenizer.model.parameters())

    def encode(self, media: Sequence[Any]) -> TokenStream:
        return self.tokenizer.encode(list(media))

    def decode(self, code: TokenStream) -> list[Any]:
        return self.tokenizer.decode(code)

    def size(self, code: TokenStream) -> Size:
        tokens = int(code.valid.sum())
        return Size(tokens, tokens * self.spec.channels)

    def latents(self, code: TokenStream) -> Iterator[tuple[Tensor, Tensor]]:
        return samples(code)


class PictureTokenizer(_Tokenizer):
    """A tokenizer of images and videos; one that knows only images goes through a video frame by frame."""

    kind: Kind = "picture"

    def prepare(self, medium: Media) -> Media:
        return medium

    def finish(self, output: Image | Video, original: Media) -> Media:
        return output


class SoundTokenizer(_Tokenizer):
    """A tokenizer of sounds; media are resampled and mixed to what it takes, its output back to the medium's own."""

    kind: Kind = "sound"

    def prepare(self, medium: Media) -> Media:
        assert isinstance(medium, Audio)
        return mix_channels(resample(medium, self.spec.sample_rate), self.spec.audio_channels)

    def finish(self, output: Audio, original: Media) -> Media:
        assert isinstance(original, Audio)
        channels, length = original.waveform.shape
        wave = mix_channels(resample(output, original.rate), channels).waveform
        # Rounding at two rates may leave the ends a sample apart.
        return Audio(F.pad(wave, (0, max(0, length - wave.shape[1])))[:, :length], original.rate)


class GriffinLimSound:
    """See :class:`GriffinLim`; works at every sound's own rate."""

    kind: Kind = "sound"
    parameters = 0

    def __init__(self, name: str, iterations: int, seed: int = 0) -> None:
        self.name, self._iterations, self._seed = name, iterations, seed
        self.about = f"80 mel bands every 10.7 ms, {iterations} iterations of Griffin-Lim"
        self.facts: dict[str, Any] = {"bands": 80, "iterations": iterations, "seed": seed}
        self._at: dict[int, GriffinLim] = {}

    def prepare(self, medium: Media) -> Media:
        return medium

    def encode(self, media: Sequence[Audio]) -> list[tuple[int, int, Tensor]]:
        return [(m.rate, m.waveform.shape[1], self._for(m.rate).encode(m.waveform)) for m in media]

    def decode(self, code: list[tuple[int, int, Tensor]]) -> list[Audio]:
        return [Audio(self._for(rate).decode(mel, length), rate) for rate, length, mel in code]

    def finish(self, output: Audio, original: Media) -> Media:
        return output

    def size(self, code: list[tuple[int, int, Tensor]]) -> Size:
        return Size(sum(mel.shape[0] * mel.shape[2] for _, _, mel in code), sum(mel.numel() for _, _, mel in code))

    def latents(self, code: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(())

    def _for(self, rate: int) -> GriffinLim:
        if rate not in self._at:
            self._at[rate] = GriffinLim(rate, self._iterations, self._seed)
        return self._at[rate]


class JpegPicture:
    """JPEG of every frame (4:2:0, optimised tables), by Pillow: what a coder of bits makes of the same pictures."""

    kind: Kind = "picture"
    parameters = 0

    def __init__(self, name: str, quality: int) -> None:
        self.name, self._quality = name, quality
        self.about = f"JPEG of quality {quality}, frame by frame"
        self.facts: dict[str, Any] = {"quality": quality}

    def prepare(self, medium: Media) -> Media:
        return medium

    def encode(self, media: Sequence[Image | Video]) -> list[tuple[float, list[bytes]]]:
        return [(m.fps, [self._bytes(f) for f in m.frames]) if isinstance(m, Video) else (0.0, [self._bytes(m.pixels)])
                for m in media]  # fmt: skip

    def decode(self, code: list[tuple[float, list[bytes]]]) -> list[Image | Video]:
        found: list[Image | Video] = []
        for fps, files in code:
            frames = torch.stack([torch.from_numpy(np.array(Pillow.open(io.BytesIO(f)))) for f in files])
            found.append(Video(frames, fps) if fps else Image(frames[0]))
        return found

    def finish(self, output: Image | Video, original: Media) -> Media:
        return output

    def size(self, code: list[tuple[float, list[bytes]]]) -> Size:
        return Size(bytes=sum(len(f) for _, files in code for f in files))

    def latents(self, code: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(())

    def _bytes(self, pixels: Tensor) -> bytes:
        buffer = io.BytesIO()
        picture = Pillow.fromarray(pixels.numpy())
        picture.save(buffer, "JPEG", quality=self._quality, subsampling="4:2:0", optimize=True)
        return buffer.getvalue()


def load_contestant(name: str, device: torch.device, *, seed: int = 0, download: bool = False) -> Contestant:
    """A tokenizer (see :func:`named_tokenizer`) or a yardstick: ``griffin-lim``, ``griffin-lim:ITERATIONS``,
    ``jpeg:QUALITY``.

    Raises:
        UserError: there is none of that name, or its number is out of range.
    """
    word, _, number = name.partition(":")
    if word == "griffin-lim":
        return GriffinLimSound(name, _number(name, number or str(ITERATIONS), 1, 10_000), seed)
    if word == "jpeg":
        return JpegPicture(name, _number(name, number or "75", 1, 100))
    tokenizer = named_tokenizer(name, download=download)
    if tokenizer.spec.modality == "audio":
        return SoundTokenizer(name, tokenizer, device)
    return PictureTokenizer(name, tokenizer, device)


def _facts_of(spec: TokenizerSpec) -> str:
    if spec.modality == "audio":
        channels = "mono" if spec.audio_channels == 1 else f"{spec.audio_channels} channels"
        return f"{spec.latents_per_second:g} latents/s of {spec.channels} values, {spec.sample_rate} Hz, {channels}"
    time = f"{spec.time_compression} frames x " if spec.time_compression > 1 else ""
    return f"{spec.channels} values per {time}{spec.space_compression} x {spec.space_compression} pixels"


def _number(name: str, text: str, low: int, high: int) -> int:
    word = name.partition(":")[0]
    if not text.isdigit() or not low <= int(text) <= high:
        raise UserError(f"'{name}': the {YARDSTICKS[word]} of {word} lies in {low} to {high}")
    return int(text)
