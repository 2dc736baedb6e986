"""The deep-compression autoencoder of Sana (Chen et al. 2025): 32 x 32 pixels per latent cell, no posterior."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .pictures import FrameCodec


class DeepCompressionCodec(FrameCodec):
    """Images at 32 x 32 pixels per latent cell of 32 channels (64 and 128 in other checkpoints)."""

    name = "dc-ae"
    modality = "image"
    library = "diffusers:AutoencoderDC"
    source = "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers"
    licence = "MIT"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        self.latent_channels = config.latent_channels
        self.space_compression = 2 ** (len(config.encoder_block_out_channels) - 1)

    def statistics(self) -> tuple[None, Tensor]:
        config: Any = self.module.config
        return None, torch.full((self.latent_channels,), 1 / config.scaling_factor)

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        module: Any = self.module
        return module.encode(pictures).latent
