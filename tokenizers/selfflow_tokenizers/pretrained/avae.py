"""Cosmos 3's sound tokenizer (AVAE): 48 kHz stereo, 64 channels, 25 latents a second."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .base import PretrainedCodec
from .waves import exactly


class AVAECodec(PretrainedCodec):
    """``diffusers.Cosmos3AVAEAudioTokenizer`` as a :class:`~selfflow_tokenizers.codecs.SoundCodec`.

    Latents are the posterior's mean; Cosmos 3 normalises them no further. **Loudness is not kept**: as released
    (``normalize_volume``), the class scales what it encodes to a peak of 0.95, so a sound decodes at that peak whatever
    it was, and a piece of a sound encodes differently from the same piece within the whole.
    """

    name = "avae"
    modality = "audio"
    library = "diffusers:Cosmos3AVAEAudioTokenizer"
    source = "nvidia/Cosmos3-Nano"
    subfolder = "sound_tokenizer"
    licence = "OpenMDW-1.1"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        self.latent_channels: int = config.vocoder_input_dim
        self.channels: int = config.dec_out_channels
        self.sample_rate = self.decoded_rate = int(config.sampling_rate)
        self.samples_per_latent = int(config.hop_size or prod(config.dec_strides))

    def encode(self, waveform: Tensor) -> Tensor:
        """Waveform ``(B, channels, n samples_per_latent)`` in [-1, 1] -> latents ``(B, n, C)``.

        Raises:
            UserError: the weights are a decoder's alone.
        """
        module: Any = self.module
        if module.encoder is None:
            raise UserError(
                "these avae weights hold a decoder only and cannot encode; "
                f"take ones with the encoder, such as those of {self.source}"
            )
        # One sound at a time: the class takes the peak over the whole batch, and a sound's latents would depend on
        # its neighbours.
        means = [module.encode(sound[None]).latent_dist.mode() for sound in waveform]
        return torch.cat(means).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, n, C)`` -> waveform ``(B, channels, n samples_per_latent)``, clamped to [-1, 1]."""
        module: Any = self.module
        waveform = module.decode(latents.transpose(1, 2))
        # The class pads odd strides itself; only a ``hop_size`` that is not the product of its strides differs.
        return exactly(waveform, latents.shape[1] * self.samples_per_latent)
