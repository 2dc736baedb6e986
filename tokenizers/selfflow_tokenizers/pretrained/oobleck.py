"""Stable Audio's autoencoder (Evans et al., arXiv:2407.14358): 44.1 kHz stereo, 64 channels, 2048 samples a latent."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, nn

from .base import PretrainedCodec
from .waves import exactly, reach


class OobleckCodec(PretrainedCodec):
    """``diffusers.AutoencoderOobleck`` as a :class:`~selfflow_tokenizers.codecs.SoundCodec`.

    Latents are the posterior's mean. Stable Audio normalises them no further, so there are no statistics.
    """

    name = "oobleck"
    modality = "audio"
    library = "diffusers:AutoencoderOobleck"
    source = "stabilityai/stable-audio-open-1.0"
    subfolder = "vae"
    licence = "stable-audio-community"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        self.latent_channels: int = config.decoder_input_channels
        self.channels: int = config.audio_channels
        self.sample_rate = self.decoded_rate = int(config.sampling_rate)
        self.samples_per_latent = prod(config.downsampling_ratios)
        self.reach = reach(config.downsampling_ratios)

    def encode(self, waveform: Tensor) -> Tensor:
        """Waveform ``(B, channels, n samples_per_latent)`` in [-1, 1] -> latents ``(B, n, C)``."""
        module: Any = self.module
        return module.encode(waveform).latent_dist.mode().transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, n, C)`` -> waveform ``(B, channels, n samples_per_latent)``."""
        module: Any = self.module
        waveform = module.decode(latents.transpose(1, 2)).sample
        # A transposed convolution of odd stride s makes s n - 1 steps of n: what is missing at the end becomes
        # silence (nothing is with the released strides, which are even).
        return exactly(waveform, latents.shape[1] * self.samples_per_latent)
