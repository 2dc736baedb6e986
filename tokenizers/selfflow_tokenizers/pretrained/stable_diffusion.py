"""The SD-VAE and every other AutoencoderKL: SD3's and FLUX.1's with 16 channels, SDXL's, ...

Models see (raw - shift_factor) * scaling_factor (Rombach et al. 2022, appendix D.1; the shift since SD3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .pictures import FrameCodec


class StableDiffusionCodec(FrameCodec):
    """Images at 8 x 8 pixels per latent cell of 4 or 16 channels; the mean of the posterior."""

    name = "sd-vae"
    modality = "image"
    library = "diffusers:AutoencoderKL"
    source = "stabilityai/sd-vae-ft-ema"
    licence = "MIT"
    patch = 2
    sample_shift = 1.78

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        self.latent_channels = config.latent_channels
        self.space_compression = 2 ** (len(config.block_out_channels) - 1)

    def statistics(self) -> tuple[Tensor, Tensor]:
        config: Any = self.module.config
        mean = torch.full((self.latent_channels,), float(config.shift_factor or 0.0))
        deviation = torch.full((self.latent_channels,), 1 / config.scaling_factor)
        # A few checkpoints (Playground's) have measured channels one by one, and scale the result.
        if config.latents_mean is not None and config.latents_std is not None:
            mean, deviation = torch.tensor(config.latents_mean), deviation * torch.tensor(config.latents_std)
        return mean, deviation
