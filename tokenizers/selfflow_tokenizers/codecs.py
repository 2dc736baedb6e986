"""Codecs: what a tokenizer is built around, a network between media and grids of raw latents.

A codec knows nothing of tokens, batches of different sizes, padding or statistics: those are the tokenizer's
(:class:`VideoTokenizer`, :class:`AudioTokenizer`), which is the same for every codec, ours or pretrained.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class PictureCodec(Protocol):
    """Frames to latent cells and back; an ``nn.Module``.

    Attributes:
        latent_channels: C, values per latent cell.
        time_compression: c, frames per latent frame after the first; 1 looks at every frame alone.
        space_compression: pixels per latent cell along rows and columns.

    Two more are optional: ``causal``, that ``encode`` and ``decode`` take a :class:`~.layers.Past` and so a clip piece
    by piece; and ``reach``, pixels beyond which nothing is seen, which tiles without seams need.
    """

    latent_channels: int
    time_compression: int
    space_compression: int

    def encode(self, frames: Tensor) -> Tensor:
        """Float ``(B, 1 + k c, H, W, 3)`` in [-1, 1] -> latents ``(B, 1 + k, h, w, C)``; no sampling, no scaling."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, 1 + k, h, w, C)`` -> frames ``(B, 1 + k c, H, W, 3)``, about [-1, 1]."""
        ...


@runtime_checkable
class SoundCodec(Protocol):
    """Waveforms to latents at an even rate and back; an ``nn.Module``.

    Attributes:
        latent_channels: C, values per latent.
        channels: channels of the waveform read and written.
        sample_rate: samples per second of the waveform read.
        decoded_rate: samples per second of the waveform written; a multiple of the latent rate too.
        samples_per_latent: samples read per latent.

    Two more are optional: ``reach``, how many latents before and after one matter to it, without which long sounds
    cannot go piece by piece; and ``times(first, count)``, seconds of latents that are not centred on their samples.
    """

    latent_channels: int
    channels: int
    sample_rate: int
    decoded_rate: int
    samples_per_latent: int

    def encode(self, waveform: Tensor) -> Tensor:
        """Float ``(B, channels, n samples_per_latent)`` in [-1, 1] -> latents ``(B, n, C)``, not drawn, not scaled."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, n, C)`` -> waveform ``(B, channels, n samples_per_latent decoded_rate / sample_rate)``."""
        ...
