"""Representation autoencoders (Zheng et al. 2025): features of a frozen DINOv2, SigLIP2 or MAE, and a decoder for them.

The class takes pixels in [0, 1], resizes whatever it is given to the encoder's one size, and always decodes to one size
of its own. It normalises latents itself, by a mean and deviation for every place of the grid; a spec holds them per
channel only, so the latents here are those after its normalisation. Noise is added while training alone.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .pictures import FrameCodec


class RepresentationCodec(FrameCodec):
    """Images of one size (256 x 256) at 16 x 16 pixels per latent cell of 768 channels."""

    name = "rae"
    modality = "image"
    library = "diffusers:AutoencoderRAE"
    source = "nyu-visionx/RAE-dinov2-wReg-base-ViTXL-n08"
    licence = "MIT"
    # Of 256 places x 768 channels: the Self-Flow paper trains at 10; RAE's rule for any latents is sqrt(values / 4096).
    train_shift = 10.0
    sample_shift = 6.93

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        self.latent_channels = config.encoder_hidden_size
        self.space_compression = config.patch_size
        self.grid = config.encoder_input_size // config.encoder_patch_size

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """As the base class says.

        Raises:
            UserError: pictures of another size, which the class would squeeze into its own.
        """
        self._check(*(size / self.space_compression for size in pictures.shape[2:]))
        module: Any = self.module
        latents = module.encode((pictures + 1) / 2).latent
        # Configured without reshape_to_2d, the class gives (N, places, C).
        return latents if latents.ndim == 4 else latents.transpose(1, 2).unflatten(2, (self.grid, self.grid))

    def decode_pictures(self, latents: Tensor) -> Tensor:
        """As the base class says.

        Raises:
            UserError: a grid of another size, which the class would resample.
        """
        self._check(*latents.shape[2:])
        module: Any = self.module
        places = latents if module.config.reshape_to_2d else latents.flatten(2).transpose(1, 2)
        return module.decode(places).sample * 2 - 1

    def _check(self, rows: float, columns: float) -> None:
        if rows != self.grid or columns != self.grid:
            size, cell = self.grid * self.space_compression, self.space_compression
            raise UserError(
                f"{self.name} takes and makes pictures of {size} x {size} pixels only, "
                f"got {rows * cell:g} x {columns * cell:g}; resize or cut them"
            )
