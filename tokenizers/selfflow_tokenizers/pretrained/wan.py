"""Wan 2.2's video autoencoder, and Wan 2.1's: causal in time, 1 + 4k frames to 1 + k latent frames.

The class goes through a clip four frames at a time with caches, so an image is exactly a clip's first frame, and a clip
can come in pieces. Models see (raw - latents_mean) / latents_std, both in its config.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..layers import Past
from .pictures import ClipCodec

_STEP = 4  # frames per latent frame that the class's loops are written for


class WanCodec(ClipCodec):
    """Clips at 4 frames x 16 x 16 pixels per latent cell of 48 channels (Wan 2.1: 4 x 8 x 8 and 16 channels).

    Raises:
        UserError: a module of another compression in time, which the class itself would encode wrongly.
    """

    name = "wan2.2"
    modality = "video"
    library = "diffusers:AutoencoderKLWan"
    source = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
    subfolder = "vae"
    licence = "Apache-2.0"
    train_shift = 2.95
    sample_shift = 15.0
    #: Says that ``encode`` and ``decode`` take a past: a clip in pieces, 1 + 4k frames first and then multiples of 4.
    causal = True

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        config: Any = module.config
        self.latent_channels = config.z_dim
        self.time_compression = 2 ** sum(config.temperal_downsample)
        self.space_compression = (config.patch_size or 1) * 2 ** (len(config.dim_mult) - 1)
        if self.time_compression != _STEP:
            raise UserError(
                f"{self.name}: these weights take {self.time_compression} frames to one; the class handles {_STEP} only"
            )
        self._caches: WeakKeyDictionary[Past, list[Any]] = WeakKeyDictionary()
        if self.space_compression < 16:
            self.patch = 2  # Wan 2.1's transformers join 2 x 2 cells of 8 x 8 pixels

    def statistics(self) -> tuple[Tensor, Tensor]:
        config: Any = self.module.config
        return torch.tensor(config.latents_mean), torch.tensor(config.latents_std)

    def encode(self, frames: Tensor, past: Past | None = None) -> Tensor:
        """As the base class says; with a past, the next frames of its clip."""
        if past is None:
            return super().encode(frames)
        module: Any = self.module
        x = frames.permute(0, 4, 1, 2, 3).contiguous()
        if module.config.patch_size is not None:
            x = _library().patchify(x, module.config.patch_size)
        cache = self._cache(past, module.encoder)
        pieces = x.split(_STEP, dim=2) if past.started else (x[:, :, :1], *x[:, :, 1:].split(_STEP, dim=2))
        latents = [module.encoder(p, feat_cache=cache, feat_idx=[0]) for p in pieces if p.shape[2]]
        past.started = True
        mean, _ = module.quant_conv(torch.cat(latents, dim=2)).chunk(2, dim=1)
        return mean.permute(0, 2, 3, 4, 1)

    def decode(self, latents: Tensor, past: Past | None = None) -> Tensor:
        """As the base class says; with a past, the frames of its clip's next latents."""
        if past is None:
            return super().decode(latents)
        module: Any = self.module
        x = module.post_quant_conv(latents.permute(0, 4, 1, 2, 3).contiguous())
        cache = self._cache(past, module.decoder)
        frames = []
        for latent in x.split(1, dim=2):
            frames.append(module.decoder(latent, feat_cache=cache, feat_idx=[0], first_chunk=not past.started))
            past.started = True
        joined = torch.cat(frames, dim=2)
        if module.config.patch_size is not None:
            joined = _library().unpatchify(joined, module.config.patch_size)
        return joined.clamp(-1.0, 1.0).permute(0, 2, 3, 4, 1)

    def _cache(self, past: Past, half: nn.Module) -> list[Any]:
        """What the class's convolutions keep of a clip: one entry for each of them, as its ``clear_cache`` makes."""
        if past not in self._caches:
            count = sum(type(layer).__name__ == "WanCausalConv3d" for layer in half.modules())
            self._caches[past] = [None] * count
        return self._caches[past]


def _library() -> Any:
    return import_module("diffusers.models.autoencoders.autoencoder_kl_wan")
