"""LTX-2's video autoencoder: 1 + 8k frames of 32 x 32 pixels per cell to 1 + k latent frames of 128 channels.

The encoder is causal, so an image's latents are those of a clip's first frame. The released decoder is not (the config
says which is): it sees all latent frames, and a clip decoded piece by piece differs at the pieces' ends. Models see
(raw - latents_mean) * scaling_factor / latents_std, which are buffers beside the weights.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from .pictures import ClipCodec


class LTX2VideoCodec(ClipCodec):
    """Clips at 8 frames x 32 x 32 pixels per latent cell of 128 channels.

    Raises:
        UserError: a decoder that is told a noise level or draws noise of its own, or frames joined before the first
            layer (for which the class has no first-frame rule).
    """

    name = "ltx2-video"
    modality = "video"
    library = "diffusers:AutoencoderKLLTX2Video"
    source = "Lightricks/LTX-2"
    subfolder = "vae"
    licence = "ltx-2-community-license-agreement"

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        noisy = config.decoder_inject_noise
        if config.timestep_conditioning or (noisy if isinstance(noisy, bool) else any(noisy)):
            raise UserError(f"{self.name}: a decoder with noise levels or noise of its own gives no fixed result")
        if config.patch_size_t != 1:
            raise UserError(f"{self.name}: patch_size_t must be 1, got {config.patch_size_t}")
        # Not the module's own ratios: where its config is silent they count every block as halving both.
        scaled = config.spatio_temporal_scaling
        scaled = [scaled] * len(config.downsample_type) if isinstance(scaled, bool) else scaled
        halved = [kind for kind, yes in zip(config.downsample_type, scaled, strict=True) if yes]
        # Reflection needs a neighbour on both sides of an edge's cell.
        self.least = 2 if config.decoder_spatial_padding_mode == "reflect" else 1
        self.latent_channels = config.latent_channels
        self.time_compression = 2 ** sum(kind != "spatial" for kind in halved)
        self.space_compression = config.patch_size * 2 ** sum(kind != "temporal" for kind in halved)

    def statistics(self) -> tuple[Tensor, Tensor]:
        module: Any = self.module
        return module.latents_mean, module.latents_std / module.config.scaling_factor

    def encode(self, frames: Tensor) -> Tensor:
        """As the base class says.

        Raises:
            UserError: pictures too small to be decoded again.
        """
        self._check(*(size // self.space_compression for size in frames.shape[2:4]))
        return super().encode(frames)

    def decode(self, latents: Tensor) -> Tensor:
        """As the base class says.

        Raises:
            UserError: grids of one row or column, which the decoder cannot reflect at their edges.
        """
        self._check(*latents.shape[2:4])
        return super().decode(latents)

    def _check(self, rows: int, columns: int) -> None:
        if min(rows, columns) < self.least:
            size, cell = self.least * self.space_compression, self.space_compression
            raise UserError(
                f"{self.name} takes and makes frames of at least {size} x {size} pixels, "
                f"got {rows * cell} x {columns * cell}"
            )
