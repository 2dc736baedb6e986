"""A causal video autoencoder: 4x in time, 8x8 in space, bounded latents.

The picture is cut into blocks of 4 frames x 4 rows x 4 columns before the first layer and put
together again after the last, so that nearly all work is done on small grids. Time is looked at
backwards only: latent frame j sees frames 0 .. 4j, and the decoder's frames 4j-3 .. 4j see latent
frames 0 .. j. The first frame fills a block of its own (repeated four times, the last copy kept by
the decoder), so an image is a clip of one frame, by the same weights and to the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from .errors import UserError
from .layers import Block, CausalTimeMix, SpaceMix

#: Frames per latent frame after the first, and pixels per latent cell along rows and columns.
TIME_COMPRESSION = 4
SPACE_COMPRESSION = 8
_STEM = 4  # rows and columns of a block cut out by the stem


@dataclass(frozen=True)
class VideoAutoencoderConfig:
    """Sizes of a :class:`VideoAutoencoder`.

    Attributes:
        latent_channels: values per latent cell.
        fine_width: channels on the grid of 4x4 pixels.
        width: channels on the grid of 8x8 pixels.
        frame_width: channels of the decoder's last stage, which works frame by frame on 4x4 pixels.
        fine_blocks: blocks on the 4x4 grid, in the encoder and in the decoder.
        blocks: blocks on the 8x8 grid, in the encoder and in the decoder.
        frame_blocks: blocks of the decoder's last stage.
        expansion: hidden channels of a block over its width.
        space_kernel: cells a block sees along rows and columns (odd).
        time_kernel: latent frames a block sees (this one and those before).
    """

    latent_channels: int = 12
    fine_width: int = 96
    width: int = 256
    frame_width: int = 48
    fine_blocks: int = 2
    blocks: int = 3
    frame_blocks: int = 2
    expansion: int = 2
    space_kernel: int = 5
    time_kernel: int = 3

    def __post_init__(self) -> None:
        for name in ("latent_channels", "fine_width", "width", "frame_width", "expansion", "time_kernel"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("fine_blocks", "blocks", "frame_blocks"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} cannot be negative, got {getattr(self, name)}")
        if self.space_kernel < 1 or self.space_kernel % 2 == 0:
            raise UserError(f"space_kernel must be odd and positive, got {self.space_kernel}")


def _blocks(config: VideoAutoencoderConfig, width: int, count: int, *, time: bool = True) -> nn.Sequential:
    def mix() -> nn.Module:
        space = SpaceMix(width, config.space_kernel)
        return nn.Sequential(space, CausalTimeMix(width, config.time_kernel)) if time else space

    return nn.Sequential(*(Block(mix(), width, config.expansion) for _ in range(count)))


def cut_blocks(frames: Tensor) -> Tensor:
    """Frames ``(B, T, H, W, 3)`` -> blocks of 4 frames x 4 x 4 pixels, ``(B, 1 + k, H / 4, W / 4, 192)``."""
    first = frames[:, :1].expand(-1, TIME_COMPRESSION - 1, -1, -1, -1)
    return rearrange(
        torch.cat([first, frames], dim=1),
        "b (t dt) (h dh) (w dw) c -> b t h w (dt dh dw c)",
        dt=TIME_COMPRESSION,
        dh=_STEM,
        dw=_STEM,
    )


class VideoAutoencoder(nn.Module):
    """Encode frames to latents in (-1, 1) and back.

    Frames are float ``(B, T, H, W, 3)`` in [-1, 1] with T = 1 + 4k and H, W multiples of 8; latents
    are ``(B, 1 + k, H / 8, W / 8, latent_channels)``.
    """

    def __init__(self, config: VideoAutoencoderConfig) -> None:
        super().__init__()
        self.config = c = config
        block = TIME_COMPRESSION * _STEM * _STEM * 3
        self.encoder = nn.ModuleDict(
            {
                "stem": nn.Linear(block, c.fine_width),
                "fine": _blocks(c, c.fine_width, c.fine_blocks),
                "down": nn.Linear(4 * c.fine_width, c.width),
                "coarse": _blocks(c, c.width, c.blocks),
                "head": nn.Linear(c.width, c.latent_channels),
            }
        )
        self.decoder = nn.ModuleDict(
            {
                "stem": nn.Linear(c.latent_channels, c.width),
                "coarse": _blocks(c, c.width, c.blocks),
                "up": nn.Linear(c.width, 4 * c.fine_width),
                "fine": _blocks(c, c.fine_width, c.fine_blocks),
                "frames": nn.Linear(c.fine_width, TIME_COMPRESSION * c.frame_width),
                "frame": _blocks(c, c.frame_width, c.frame_blocks, time=False),
                "head": nn.Linear(c.frame_width, _STEM * _STEM * 3),
            }
        )

    def encode(self, frames: Tensor) -> Tensor:
        """Frames ``(B, T, H, W, 3)`` in [-1, 1] -> latents ``(B, 1 + k, H / 8, W / 8, C)`` in (-1, 1)."""
        x = cut_blocks(frames)
        x = self.encoder["fine"](self.encoder["stem"](x))
        x = rearrange(x, "b t (h dh) (w dw) c -> b t h w (dh dw c)", dh=2, dw=2)
        x = self.encoder["coarse"](self.encoder["down"](x))
        return torch.tanh(self.encoder["head"](x))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, 1 + k, h, w, C)`` -> frames ``(B, 1 + 4k, 8h, 8w, 3)``, about [-1, 1], not clipped."""
        x = self.decoder["coarse"](self.decoder["stem"](latents))
        x = rearrange(self.decoder["up"](x), "b t h w (dh dw c) -> b t (h dh) (w dw) c", dh=2, dw=2)
        x = self.decoder["frames"](self.decoder["fine"](x))
        x = rearrange(x, "b t h w (dt c) -> b (t dt) h w c", dt=TIME_COMPRESSION)[:, TIME_COMPRESSION - 1 :]
        x = self.decoder["head"](self.decoder["frame"](x))
        return rearrange(x, "b t h w (dh dw c) -> b t (h dh) (w dw) c", dh=_STEM, dw=_STEM)

    def forward(self, frames: Tensor) -> Tensor:
        """Reconstruction of ``frames``, same shape."""
        return self.decode(self.encode(frames))
