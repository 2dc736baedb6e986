"""What the adapters of image and of video autoencoders share: layouts, and taking images a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import PretrainedCodec

#: Pixels that an image autoencoder is given at once: eight frames of 256 x 256, each of which takes about half a
#: gigabyte at the widest layers of the SD-VAE. A larger frame goes alone.
PIXELS = 8 * 256 * 256


class FrameCodec(PretrainedCodec):
    """A :class:`~selfflow_tokenizers.codecs.PictureCodec` of single frames: latent frame j is frame j.

    A subclass translates pictures. Samples and frames are one batch to the library, taken a few at a time, so that
    memory does not grow with the length of a clip.
    """

    latent_channels: int
    time_compression = 1
    space_compression: int

    def encode(self, frames: Tensor) -> Tensor:
        """Float ``(B, T, H, W, 3)`` in [-1, 1] -> latents ``(B, T, h, w, C)``."""
        return _each(self.encode_pictures, frames, frames.shape[2] * frames.shape[3])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, T, h, w, C)`` -> frames ``(B, T, H, W, 3)``, about [-1, 1]."""
        return _each(self.decode_pictures, latents, latents.shape[2] * latents.shape[3] * self.space_compression**2)

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)`` in [-1, 1] -> latents ``(N, C, h, w)``; here the mean of the posterior."""
        module: Any = self.module
        return module.encode(pictures).latent_dist.mode()

    def decode_pictures(self, latents: Tensor) -> Tensor:
        """Latents ``(N, C, h, w)`` -> pictures ``(N, 3, H, W)``, about [-1, 1]."""
        module: Any = self.module
        return module.decode(latents).sample


class ClipCodec(PretrainedCodec):
    """A :class:`~selfflow_tokenizers.codecs.PictureCodec` of clips: 1 + c k frames to 1 + k latent frames."""

    latent_channels: int
    time_compression: int
    space_compression: int

    def encode(self, frames: Tensor) -> Tensor:
        """Float ``(B, 1 + c k, H, W, 3)`` in [-1, 1] -> latents ``(B, 1 + k, h, w, C)``, the posterior's mean."""
        module: Any = self.module
        return module.encode(frames.permute(0, 4, 1, 2, 3).contiguous()).latent_dist.mode().permute(0, 2, 3, 4, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, 1 + k, h, w, C)`` -> frames ``(B, 1 + c k, H, W, 3)``, about [-1, 1]."""
        module: Any = self.module
        return module.decode(latents.permute(0, 4, 1, 2, 3).contiguous()).sample.permute(0, 2, 3, 4, 1)


def _each(function: Callable[[Tensor], Tensor], frames: Tensor, pixels: int) -> Tensor:
    """``function`` of channels-first pictures of ``pixels`` pixels each, at most :data:`PIXELS` of them at once."""
    pictures = frames.flatten(0, 1).permute(0, 3, 1, 2)
    parts = [function(part.contiguous()) for part in pictures.split(max(1, PIXELS // pixels))]
    return torch.cat(parts).permute(0, 2, 3, 1).unflatten(0, frames.shape[:2])
