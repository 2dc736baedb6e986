"""What tokenizers read and write: images, videos and sounds in memory.

The types hold media the way decoders deliver it (bytes for pixels, floats for sound), so that a
clip costs no more memory than it must; a tokenizer converts on its own device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import UserError


@dataclass(frozen=True)
class Image:
    """One picture: ``pixels`` uint8 ``(H, W, 3)``, sRGB."""

    pixels: Tensor

    def __post_init__(self) -> None:
        _check_pixels("an image", self.pixels, ndim=3)


@dataclass(frozen=True)
class Video:
    """A clip of constant frame rate: ``frames`` uint8 ``(T, H, W, 3)``, sRGB; ``fps`` in frames per second."""

    frames: Tensor
    fps: float

    def __post_init__(self) -> None:
        _check_pixels("a video", self.frames, ndim=4)
        if not 0 < self.fps < math.inf:
            raise UserError(f"a video needs a positive frame rate, got {self.fps}")

    @property
    def seconds(self) -> float:
        """Duration: every frame is shown for ``1 / fps`` seconds."""
        return self.frames.shape[0] / self.fps


@dataclass(frozen=True)
class Audio:
    """A sound: ``waveform`` float32 ``(channels, samples)`` in [-1, 1]; ``rate`` in samples per second."""

    waveform: Tensor
    rate: int

    def __post_init__(self) -> None:
        if self.waveform.ndim != 2 or 0 in self.waveform.shape:
            raise UserError(f"a sound needs a waveform of shape (channels, samples), got {tuple(self.waveform.shape)}")
        if not self.waveform.is_floating_point():
            raise UserError(f"a waveform holds floats in [-1, 1], got {self.waveform.dtype}; divide by its range")
        if not self.rate > 0:
            raise UserError(f"a sound needs a positive sample rate, got {self.rate}")

    @property
    def seconds(self) -> float:
        return self.waveform.shape[1] / self.rate


Media = Image | Video | Audio


def _check_pixels(what: str, pixels: Tensor, ndim: int) -> None:
    shape = "(T, H, W, 3)" if ndim == 4 else "(H, W, 3)"
    if pixels.ndim != ndim or pixels.shape[-1] != 3 or 0 in pixels.shape:
        raise UserError(f"{what} needs pixels of shape {shape}, got {tuple(pixels.shape)}")
    if pixels.dtype != torch.uint8:
        raise UserError(f"{what} holds uint8 pixels (0 to 255), got {pixels.dtype}; scale and round them first")
