"""Kyutai's Mimi (Défossez et al., arXiv:2410.00037) without its quantiser: 24 kHz mono, 12.5 latents a second."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .base import PretrainedCodec
from .waves import exactly


class MimiCodec(PretrainedCodec):
    """``transformers.MimiModel`` as a :class:`~selfflow_tokenizers.codecs.SoundCodec` of continuous latents.

    A latent is what the encoder half makes (convolutions, causal sliding-window transformer, downsampling), before the
    split residual quantiser; the decoder half (upsampling, transformer, convolutions) takes it in place of the sum of
    code vectors that it was trained on. Everything is causal: latent j sees samples before (j + 1) x 1920 alone.
    """

    name = "mimi"
    modality = "audio"
    library = "transformers:MimiModel"
    source = "kyutai/mimi"
    licence = "CC-BY-4.0"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        if not hasattr(module.encoder, "encoder_seanet"):
            raise UserError(
                "mimi needs a transformers whose MimiModel has two halves; install transformers 5.23 or later"
            )
        config: Any = module.config
        self.latent_channels: int = config.hidden_size
        self.channels: int = config.audio_channels
        self.sample_rate = self.decoded_rate = int(config.sampling_rate)
        self.samples_per_latent = int(config.frame_size)

    def encode(self, waveform: Tensor) -> Tensor:
        """Waveform ``(B, channels, n samples_per_latent)`` in [-1, 1] -> latents ``(B, n, C)``."""
        module: Any = self.module
        # Not streaming, whatever the config says: the class would otherwise keep its padding and keys between calls.
        return module.encoder(waveform, use_streaming=False).latents.transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, n, C)`` -> waveform ``(B, channels, n samples_per_latent)``."""
        module: Any = self.module
        waveform = module.decoder(latents.transpose(1, 2)).audio_values
        # Causal layers trim what they add on the right, so that this changes nothing; without causality they need not.
        return exactly(waveform, latents.shape[1] * self.samples_per_latent)
