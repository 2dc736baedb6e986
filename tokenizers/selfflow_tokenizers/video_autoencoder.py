"""A causal video autoencoder: 4x in time, 8x8 or 16x16 in space; or one for images alone.

The picture is cut into blocks of 4 frames x 4 rows x 4 columns before the first layer and put
together again after the last, so that nearly all work is done on small grids. Time is looked at
backwards only: latent frame j sees frames 0 .. 4j, and the decoder's frames 4j-3 .. 4j see latent
frames 0 .. j. The first frame fills a block of its own (repeated four times, the last copy kept by
the decoder), so an image is a clip of one frame, by the same weights and to the same bits. With a
time compression of 1 there are no layers over time: every frame is an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from .errors import UserError
from .latent import LatentKind, mean_of, split_posterior
from .layers import Block, CausalTimeMix, Chain, Past, SpaceMix

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
        time_compression: frames per latent frame after the first: 4, or 1 for images alone.
        space_compression: pixels per latent cell along rows and columns: 8, or 16 with one more stage.
        deep_width: channels on the grid of 16x16 pixels, where there is one.
        deep_blocks: blocks on that grid, in the encoder and in the decoder.
        latent: ``bounded`` by tanh, or the ``gaussian`` posterior of a VAE.
        isometric: a matrix maps the encoder's latents so that their distances are those of the decoded pictures, see
            :mod:`~selfflow_tokenizers.isometry`, which makes such models of trained ones.
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
    time_compression: Literal[1, 4] = 4
    space_compression: Literal[8, 16] = 8
    deep_width: int = 384
    deep_blocks: int = 2
    latent: LatentKind = "bounded"
    isometric: bool = False

    def __post_init__(self) -> None:
        for name in ("latent_channels", "fine_width", "width", "frame_width", "expansion", "time_kernel", "deep_width"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("fine_blocks", "blocks", "frame_blocks", "deep_blocks"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} cannot be negative, got {getattr(self, name)}")
        if self.space_kernel < 1 or self.space_kernel % 2 == 0:
            raise UserError(f"space_kernel must be odd and positive, got {self.space_kernel}")
        if self.time_compression not in (1, 4):
            raise UserError(f"time_compression is 4, or 1 for images alone, got {self.time_compression}")
        if self.space_compression not in (8, 16):
            raise UserError(f"space_compression is 8 or 16, got {self.space_compression}")
        if self.latent not in ("bounded", "gaussian"):
            raise UserError(f"latent is bounded or gaussian, got {self.latent}")


def _blocks(config: VideoAutoencoderConfig, width: int, count: int, *, time: bool = True) -> Chain:
    def mix() -> nn.Module:
        space = SpaceMix(width, config.space_kernel)
        if not time or config.time_compression == 1:
            return space
        return Chain(space, CausalTimeMix(width, config.time_kernel))

    return Chain(*(Block(mix(), width, config.expansion) for _ in range(count)))


def cut_blocks(frames: Tensor, time: int = 4, *, first: bool = True) -> Tensor:
    """Frames ``(B, T, H, W, 3)`` -> blocks of ``time`` frames x 4 x 4 pixels, ``(B, t, H / 4, W / 4, time * 48)``.

    ``first`` says that the clip begins here: its first frame fills a block of its own, and T is 1 + k ``time``.
    """
    if first:
        frames = torch.cat([frames[:, :1].expand(-1, time - 1, -1, -1, -1), frames], dim=1)
    return rearrange(
        frames, "b (t dt) (h dh) (w dw) c -> b t h w (dt dh dw c)", dt=time, dh=_STEM, dw=_STEM
    )  # fmt: skip


def _join_cells(x: Tensor) -> Tensor:
    return rearrange(x, "b t (h dh) (w dw) c -> b t h w (dh dw c)", dh=2, dw=2)


def _split_cells(x: Tensor) -> Tensor:
    return rearrange(x, "b t h w (dh dw c) -> b t (h dh) (w dw) c", dh=2, dw=2)


class VideoAutoencoder(nn.Module):
    """Encode frames to latents and back; a :class:`~selfflow_tokenizers.codecs.PictureCodec`.

    Frames are float ``(B, T, H, W, 3)`` in [-1, 1] with T = 1 + 4k (any T for images alone) and H, W multiples of
    the space compression s; latents are ``(B, 1 + k, H / s, W / s, latent_channels)``, in (-1, 1) where bounded and
    not isometric.

    ``encode`` and ``decode`` take a clip in pieces: with the same :class:`Past` for all of them, the first piece has
    1 + 4k frames and the others multiples of 4.
    """

    #: Says that ``encode`` and ``decode`` take a past.
    causal = True

    def __init__(self, config: VideoAutoencoderConfig) -> None:
        super().__init__()
        self.config = c = config
        self.latent_channels: int = c.latent_channels
        self.time_compression: int = c.time_compression
        self.space_compression: int = c.space_compression
        block = c.time_compression * _STEM * _STEM * 3
        deep = c.space_compression == 16
        inner = c.deep_width if deep else c.width
        encoder: dict[str, nn.Module] = {
            "stem": nn.Linear(block, c.fine_width),
            "fine": _blocks(c, c.fine_width, c.fine_blocks),
            "down": nn.Linear(4 * c.fine_width, c.width),
            "coarse": _blocks(c, c.width, c.blocks),
        }
        if deep:
            encoder["deep_down"] = nn.Linear(4 * c.width, c.deep_width)
            encoder["deep"] = _blocks(c, c.deep_width, c.deep_blocks)
        encoder["head"] = nn.Linear(inner, c.latent_channels * (2 if c.latent == "gaussian" else 1))
        decoder: dict[str, nn.Module] = {"stem": nn.Linear(c.latent_channels, inner)}
        if deep:
            decoder["deep"] = _blocks(c, c.deep_width, c.deep_blocks)
            decoder["deep_up"] = nn.Linear(c.deep_width, 4 * c.width)
        decoder |= {
            "coarse": _blocks(c, c.width, c.blocks),
            "up": nn.Linear(c.width, 4 * c.fine_width),
            "fine": _blocks(c, c.fine_width, c.fine_blocks),
            "frames": nn.Linear(c.fine_width, c.time_compression * c.frame_width),
            "frame": _blocks(c, c.frame_width, c.frame_blocks, time=False),
            "head": nn.Linear(c.frame_width, _STEM * _STEM * 3),
        }
        self.encoder, self.decoder = nn.ModuleDict(encoder), nn.ModuleDict(decoder)
        self.mix: Tensor | None
        self.register_buffer("mix", torch.eye(c.latent_channels) if c.isometric else None)

    def posterior(self, frames: Tensor, past: Past | None = None) -> tuple[Tensor, Tensor | None]:
        """Mean of the latents, and the logarithm of their variance where they are gaussian; see :meth:`encode`.

        They are those before :attr:`mix`, which what is decoded has behind it.
        """
        encoder = self.encoder
        x = cut_blocks(frames, self.time_compression, first=past is None or not past.started)
        x = encoder["fine"](encoder["stem"](x), past)
        x = encoder["coarse"](encoder["down"](_join_cells(x)), past)
        if self.space_compression == 16:
            x = encoder["deep"](encoder["deep_down"](_join_cells(x)), past)
        if past is not None:
            past.started = True
        return split_posterior(encoder["head"](x), self.config.latent)

    def encode(self, frames: Tensor, past: Past | None = None) -> Tensor:
        """Frames ``(B, T, H, W, 3)`` in [-1, 1] -> latents ``(B, t, h, w, C)``, the mean where they are gaussian."""
        latents = mean_of(self.posterior(frames, past))
        return latents if self.mix is None else latents @ self.mix.to(latents.dtype)

    def decode(self, latents: Tensor, past: Past | None = None) -> Tensor:
        """Latents ``(B, t, h, w, C)`` -> frames ``(B, T, H, W, 3)``, about [-1, 1], not clipped."""
        decoder, first = self.decoder, past is None or not past.started
        x = decoder["stem"](latents)
        if self.space_compression == 16:
            x = _split_cells(decoder["deep_up"](decoder["deep"](x, past)))
        x = _split_cells(decoder["up"](decoder["coarse"](x, past)))
        x = decoder["frames"](decoder["fine"](x, past))
        x = rearrange(x, "b t h w (dt c) -> b (t dt) h w c", dt=self.time_compression)
        if first:
            x = x[:, self.time_compression - 1 :]
        if past is not None:
            past.started = True
        x = decoder["head"](decoder["frame"](x))
        return rearrange(x, "b t h w (dh dw c) -> b t (h dh) (w dw) c", dh=_STEM, dw=_STEM)

    def forward(self, frames: Tensor) -> Tensor:
        """Reconstruction of ``frames``, same shape."""
        return self.decode(self.encode(frames))

    @property
    def reach(self) -> int:
        """Pixels along rows and columns, a multiple of the space compression, beyond which nothing is seen: neither by
        a latent of the picture, nor by a pixel of the latents.
        """
        c = self.config
        half = c.space_kernel // 2
        stages = {4: c.fine_blocks + c.frame_blocks, 8: c.blocks}
        if c.space_compression == 16:
            stages[16] = c.deep_blocks
        seen = sum(half * blocks * size for size, blocks in stages.items()) + c.space_compression
        return -(-seen // c.space_compression) * c.space_compression
