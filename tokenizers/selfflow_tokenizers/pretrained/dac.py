"""Descript's audio codec (Kumar et al., arXiv:2306.06546) without its quantiser: 44.1 kHz mono, 512 samples each."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, nn

from .base import PretrainedCodec
from .waves import exactly, reach


class DACCodec(PretrainedCodec):
    """``transformers.DacModel`` as a :class:`~selfflow_tokenizers.codecs.SoundCodec` of continuous latents.

    A latent is what the encoder makes, before the residual quantiser. The decoder was trained on the quantised vector,
    an approximation of the latent (at many precisions, by quantiser dropout) in the same space; so the latent itself
    decodes, without the codebooks' error. There are no statistics: nobody trained a generator of these latents.
    """

    name = "dac"
    modality = "audio"
    library = "transformers:DacModel"
    source = "descript/dac_44khz"
    licence = "MIT"
    channels = 1

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        self.latent_channels: int = config.hidden_size
        self.sample_rate = self.decoded_rate = int(config.sampling_rate)
        self.samples_per_latent = prod(config.downsampling_ratios)
        self.reach = reach(config.downsampling_ratios)

    def encode(self, waveform: Tensor) -> Tensor:
        """Waveform ``(B, 1, n samples_per_latent)`` in [-1, 1] -> latents ``(B, n, C)``."""
        module: Any = self.module
        return module.encoder(waveform).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, n, C)`` -> waveform ``(B, 1, n samples_per_latent)`` in (-1, 1)."""
        module: Any = self.module
        waveform = module.decode(quantized_representation=latents.transpose(1, 2)).audio_values[:, None]
        # A transposed convolution of odd stride s makes s n - 1 steps of n (the 16 and 24 kHz models have a stride of
        # 5 and lose 8 samples): what is missing at the end becomes silence.
        return exactly(waveform, latents.shape[1] * self.samples_per_latent)
