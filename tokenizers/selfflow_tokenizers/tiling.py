"""Large pictures tile by tile: a picture codec around a picture codec.

Tiles overlap. What a tile gives near an edge that is not the picture's own is wrong by as much as the codec would have
seen beyond it; weights that fall linearly towards such edges blend neighbouring tiles, after a margin is left out
altogether. A codec with a finite reach loses nothing where the margin is its reach: then blending mixes equal values.
Memory depends on the tile and not on the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .codecs import PictureCodec
from .errors import UserError
from .layers import Past


class Tiled(nn.Module):
    """A :class:`PictureCodec` that runs another one on overlapping tiles.

    Args:
        codec: any picture codec.
        tile: rows and columns of a tile in pixels.
        overlap: pixels that neighbouring tiles share; both are multiples of the codec's space compression.
        margin: pixels at an inner edge that are not used at all; by default the codec's ``reach`` where it states
            one and the overlap has room for it, else none.
    """

    def __init__(self, codec: PictureCodec, *, tile: int = 512, overlap: int = 128, margin: int | None = None) -> None:
        super().__init__()
        cell = codec.space_compression
        if tile < 1 or overlap < 0 or tile % cell or overlap % cell:
            raise UserError(
                f"tile and overlap are multiples of {cell} pixels for this tokenizer, got {tile}, {overlap}"
            )
        if tile < 2 * overlap or tile == overlap:
            raise UserError(f"a tile of {tile} pixels is at least twice the overlap, got an overlap of {overlap}")
        if margin is None:
            reach = int(getattr(codec, "reach", 0))
            margin = reach if 2 * reach <= overlap else 0
        if margin < 0 or 2 * margin > overlap or margin % cell:
            raise UserError(
                f"the margin is a multiple of {cell} pixels up to half the overlap ({overlap}), got {margin}"
            )
        assert isinstance(codec, nn.Module)
        self.codec: Any = codec
        self.tile, self.overlap, self.margin = tile, overlap, margin
        self.latent_channels = codec.latent_channels
        self.time_compression, self.space_compression = codec.time_compression, codec.space_compression
        self.causal = bool(getattr(codec, "causal", False))

    def encode(self, frames: Tensor, past: Past | None = None) -> Tensor:
        """As :meth:`PictureCodec.encode`; each tile has a past of its own."""
        cell = self.space_compression
        return self._blend(frames, 1, cell, self.codec.encode, past)

    def decode(self, latents: Tensor, past: Past | None = None) -> Tensor:
        """As :meth:`PictureCodec.decode`."""
        cell = self.space_compression
        return self._blend(latents, cell, 1, self.codec.decode, past)

    def _blend(self, x: Tensor, unit_in: int, unit_out: int, run: Callable[..., Tensor], past: Past | None) -> Tensor:
        """Run every tile of ``x (B, T, H, W, C)``, whose entries are ``unit_in`` pixels wide, and mix the results,
        whose entries are ``unit_out`` pixels wide.
        """
        rows, columns = (tiles(size * unit_in, self.tile, self.overlap) for size in x.shape[2:4])
        height, width = (size * unit_in // unit_out for size in x.shape[2:4])
        mixed: Tensor | None = None
        for top, bottom in rows:
            for left, right in columns:
                piece = x[:, :, top // unit_in : bottom // unit_in, left // unit_in : right // unit_in]
                extra = (past.part((top, left)),) if past is not None else ()
                out = run(piece, *extra)
                if mixed is None:
                    mixed = out.new_zeros(*out.shape[:2], height, width, out.shape[-1])
                down = self._weights(top, bottom, height * unit_out, unit_out, out)
                across = self._weights(left, right, width * unit_out, unit_out, out)
                place = (slice(top // unit_out, bottom // unit_out), slice(left // unit_out, right // unit_out))
                mixed[:, :, place[0], place[1]] += out * (down[:, None] * across)[..., None]
        assert mixed is not None
        if past is not None:
            past.started = True
        return mixed

    def _weights(self, start: int, end: int, size: int, unit: int, like: Tensor) -> Tensor:
        """What a tile from ``start`` to ``end`` of ``size`` pixels counts, per entry of ``unit`` pixels. Over all tiles
        they add up to 1: where two overlap, one falls as the other rises.
        """
        weights = torch.ones((end - start) // unit, dtype=torch.float64)
        if not self.overlap:
            return weights.to(like)
        # Centres of entries within the overlap, after the margin, as a share of what is left of it.
        centres = (torch.arange(self.overlap // unit, dtype=torch.float64) + 0.5) * unit
        left = max(self.overlap - 2 * self.margin, 0)
        rise = ((centres - self.margin) / left).clamp(0, 1) if left else (centres > self.margin).double()
        if start > 0:
            weights[: len(rise)] *= rise
        if end < size:
            weights[len(weights) - len(rise) :] *= 1 - rise
        return weights.to(like)


def tiles(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Starts and ends of tiles that cover ``size``, every two neighbours sharing exactly ``overlap``."""
    count = max(1, math.ceil((size - overlap) / (tile - overlap)))
    step = tile - overlap
    return [(i * step, min(i * step + tile, size)) for i in range(count)]


@torch.no_grad()
def seam_error(codec: PictureCodec, frames: Tensor, *, tile: int, overlap: int) -> dict[str, float]:
    """What tiling changes, on frames ``(B, T, H, W, 3)`` in [-1, 1] that fit into memory at once.

    Returns:
        the largest and the root mean square difference of ``latents`` relative to their deviation, and of pixels
        decoded from the same latents in units of 1/255: ``latents_max``, ``latents_rms``, ``pixels_max``,
        ``pixels_rms``.
    """
    tiled = Tiled(codec, tile=tile, overlap=overlap)
    latents = codec.encode(frames)
    wrong = (tiled.encode(frames) - latents) / latents.std()
    off = (tiled.decode(latents) - codec.decode(latents)) * 127.5
    found = {}
    for name, error in (("latents", wrong), ("pixels", off)):
        found[f"{name}_max"] = float(error.abs().max())
        found[f"{name}_rms"] = float(error.square().mean().sqrt())
    return found
