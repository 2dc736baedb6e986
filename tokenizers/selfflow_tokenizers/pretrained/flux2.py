"""FLUX.2's image autoencoder: 2 x 2 latent cells of 32 channels joined into one of 128, batch-normalised.

The weights are Apache-2.0 also in repositories whose transformers are not (FLUX.2 [dev]); the one named here is under
that licence as a whole and open to everybody.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import UserError
from .pictures import FrameCodec


class Flux2Codec(FrameCodec):
    """Images at 16 x 16 pixels per latent cell of 128 channels, in the order FLUX.2's transformers read them.

    Raises:
        UserError: its patches are not square.
    """

    name = "flux2"
    modality = "image"
    library = "diffusers:AutoencoderKLFlux2"
    source = "black-forest-labs/FLUX.2-klein-4B"
    subfolder = "vae"
    licence = "Apache-2.0"
    train_shift = 4.63
    sample_shift = 6.93

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        self.edge, columns = config.patch_size
        if self.edge != columns:
            raise UserError(f"{self.name}: patches of {self.edge} x {columns} latent cells are not square")
        self.latent_channels = config.latent_channels * self.edge**2
        self.space_compression = self.edge * 2 ** (len(config.block_out_channels) - 1)

    def statistics(self) -> tuple[Tensor, Tensor]:
        module: Any = self.module
        return module.bn.running_mean, torch.sqrt(module.bn.running_var + module.config.batch_norm_eps)

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        cells = super().encode_pictures(pictures)
        return rearrange(cells, "n c (h dh) (w dw) -> n (c dh dw) h w", dh=self.edge, dw=self.edge)

    def decode_pictures(self, latents: Tensor) -> Tensor:
        cells = rearrange(latents, "n (c dh dw) h w -> n c (h dh) (w dw)", dh=self.edge, dw=self.edge)
        return super().decode_pictures(cells.contiguous())
