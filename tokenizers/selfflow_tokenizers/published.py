"""The published latent geometry of pretrained tokenizers: enough to count tokens without their weights.

A plan of a training run needs channels, compression and rates, which the authors state; it does not need a network.
The numbers are those of the weights that an adapter's name stands for (see ``pretrained``), from their config.json on
the hub. Other weights under the same name may differ (Wan 2.1 under ``wan2.2``), so they are looked at themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor, nn

from .audio_tokenizer import AudioTokenizer
from .errors import UserError
from .pretrained import adapter
from .video_tokenizer import VideoTokenizer


@dataclass(frozen=True)
class Pictures:
    """Channels of a latent cell, frames and pixels that it stands for, and cells along a token's side."""

    channels: int
    frames: int
    pixels: int
    patch: int = 1


@dataclass(frozen=True)
class Sounds:
    """Channels of a latent, samples per second read, samples that a latent stands for, channels of the waveform."""

    channels: int
    rate: int
    samples: int
    waveform: int = 2


#: Adapter -> geometry of its own weights. DC-AE, RAE, DAC and the rest are not in it: name them where they lie.
PUBLISHED: dict[str, Pictures | Sounds] = {
    "sd-vae": Pictures(4, 1, 8, patch=2),
    "flux2": Pictures(128, 1, 16),
    "wan2.2": Pictures(48, 4, 16),
    "avae": Sounds(64, 48_000, 1920),
}


class NoWeights(nn.Module):
    """A codec that has a geometry and nothing else."""

    def __init__(self, name: str, geometry: Pictures | Sounds) -> None:
        super().__init__()
        self.name = name
        self.nothing = nn.Parameter(torch.empty(0))  # a network is somewhere: on the CPU
        self.latent_channels = geometry.channels
        if isinstance(geometry, Pictures):
            self.time_compression, self.space_compression = geometry.frames, geometry.pixels
        else:
            self.sample_rate = self.decoded_rate = geometry.rate
            self.samples_per_latent, self.channels = geometry.samples, geometry.waveform

    def encode(self, media: Tensor) -> NoReturn:
        raise UserError(f"this {self.name} has no weights, only its published geometry; it counts tokens and no more")

    def decode(self, latents: Tensor) -> NoReturn:
        self.encode(latents)


def published_tokenizer(name: str) -> VideoTokenizer | AudioTokenizer:
    """A tokenizer that counts, places and shifts tokens as the adapter ``name`` would, and can neither encode nor
    decode.

    Raises:
        UserError: no geometry is written down for that name.
    """
    if name not in PUBLISHED:
        raise UserError(f"no published geometry is known of '{name}'; there is that of {', '.join(PUBLISHED)}")
    geometry, kind = PUBLISHED[name], adapter(name)
    about = {"train_shift": kind.train_shift, "sample_shift": kind.sample_shift, "licence": kind.licence}
    codec = NoWeights(name, geometry)
    tokenizer: VideoTokenizer | AudioTokenizer
    if isinstance(geometry, Pictures):
        tokenizer = VideoTokenizer(codec, patch=geometry.patch, **about)  # type: ignore[arg-type]
    else:
        tokenizer = AudioTokenizer(codec, **about)  # type: ignore[arg-type]
    tokenizer.spec = replace(tokenizer.spec, name=f"{name}-published", modality=kind.modality)
    return tokenizer
