"""Images and videos to token streams and back, through any picture codec.

The codec turns pixels into a grid of latent cells; ``patch`` x ``patch`` cells make one token, and values are
standardised by the mean and deviation of each latent channel (both in the spec). Media of any size are filled up to
whole tokens by repeating their last row, column and frame; decoding crops that off again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from einops import rearrange
from torch import Tensor, nn

from . import folder as on_disk
from .codecs import PictureCodec
from .errors import UserError
from .grids import autocast, check_stream, same_shape, samples, standardise, unstandardise
from .layers import Past
from .media import Image, Video
from .spec import TokenizerSpec
from .stream import Extent, TokenStream
from .tiling import Tiled

#: Clips of equal shape encoded or decoded at once, and pixels of them; longer clips go piece by piece where the codec
#: can, so that memory does not grow with their length.
_BATCH, _PIXELS = 8, 2**21


class VideoTokenizer:
    """A picture codec with the spec of its latents; encodes stills as clips of one frame.

    Args:
        model: a :class:`PictureCodec`, ours or an adapter; put into evaluation mode.
        name: short id in the spec; a hash of the weights is appended.
        patch: latent cells per token along rows and along columns.
        mean, deviation: per latent channel, measured on training latents; None leaves latents as they are.
        train_shift, sample_shift, licence: see :class:`TokenizerSpec`.
    """

    def __init__(
        self,
        model: PictureCodec,
        *,
        name: str = "video",
        patch: int = 2,
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        train_shift: float = 1.0,
        sample_shift: float = 1.0,
        licence: str = "Apache-2.0",
    ) -> None:
        if patch < 1:
            raise UserError(f"patch counts latent cells per token, at least 1, got {patch}")
        assert isinstance(model, nn.Module)
        self.model: Any = model.eval()
        self.stored = torch.float32
        self.patch = patch
        cells = patch * patch
        self.spec = TokenizerSpec(
            name=f"{name}-{on_disk.weights_hash(model)}",
            modality="image" if model.time_compression == 1 else "video",
            channels=model.latent_channels * cells,
            time_compression=model.time_compression,
            space_compression=model.space_compression * patch,
            # A token's channels are the latent channels of its cells, one cell after the other.
            shift=() if mean is None else tuple(mean.tolist()) * cells,
            scale=() if deviation is None else tuple((1 / deviation).tolist()) * cells,
            train_shift=train_shift,
            sample_shift=sample_shift,
            licence=licence,
        )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> VideoTokenizer:
        self.model.to(device)
        return self

    def patched(self, patch: int) -> VideoTokenizer:
        """The same codec with ``patch`` x ``patch`` latent cells to a token."""
        channels = self.model.latent_channels
        shift, scale = self.spec.shift[:channels], self.spec.scale[:channels]
        other = VideoTokenizer(
            self.model,
            patch=patch,
            mean=torch.tensor(shift, dtype=torch.float64) if shift else None,
            deviation=1 / torch.tensor(scale, dtype=torch.float64) if scale else None,
            train_shift=self.spec.train_shift,
            sample_shift=self.spec.sample_shift,
            licence=self.spec.licence,
        )
        other.spec = replace(other.spec, name=self.spec.name)
        other.stored = self.stored
        return other

    def tiled(self, tile: int = 512, overlap: int = 128) -> VideoTokenizer:
        """The same tokenizer working through large pictures tile by tile, see :class:`Tiled`."""
        inner = self.model.codec if isinstance(self.model, Tiled) else self.model
        other = VideoTokenizer(Tiled(inner, tile=tile, overlap=overlap), patch=self.patch)
        other.spec, other.stored = self.spec, self.stored
        return other

    def encode(self, media: Sequence[Image | Video]) -> TokenStream:
        """Images and videos of any sizes -> one stream; shorter rows end in padding.

        Raises:
            UserError: something that is no list of images and videos, or a codec that gives NaN or infinity.
        """
        if isinstance(media, Image | Video):
            raise UserError("encode takes a list of images and videos; put the one into a list")
        for medium in media:
            if not isinstance(medium, Image | Video):
                raise UserError(f"a tokenizer of pictures takes images and videos, got {type(medium).__name__}")
        clips = [m.pixels[None] if isinstance(m, Image) else m.frames for m in media]
        extents = [extent_of(m) for m in media]
        shapes = [self.filled(e.frames, e.height, e.width) for e in extents]
        rows: list[TokenStream | None] = [None] * len(clips)
        for group in same_shape(shapes, self._at_once(shapes)):
            values = self.encode_batch(torch.stack([self.fill(clips[i], shapes[i]) for i in group]))
            if not bool(torch.isfinite(values).all()):
                raise UserError(f"'{self.spec.name}' gives NaN or infinite latents for these pictures")
            for i, value in zip(group, values, strict=True):
                e = extents[i]
                positions = self.positions(e.frames, e.height, e.width, e.fps or 1.0)
                rows[i] = TokenStream.dense(value[None], positions, (e,))
        return TokenStream.pad([row for row in rows if row is not None])

    @torch.no_grad()
    def encode_batch(self, frames: Tensor, *, bfloat16: bool = False, past: Past | None = None) -> Tensor:
        """Frames uint8 ``(B, T, H, W, 3)`` of one size -> token values float32 ``(B, N, C)``, no checks, no positions.

        ``bfloat16`` computes in bfloat16, which is quicker on devices that have it and exact to about 1 %. ``past``
        goes on after the piece it has seen last, where the codec is causal.
        """
        values = []
        step = self.spec.time_compression
        for piece, seen in self._pieces(frames, past, step, step * math.prod(frames.shape[2:4])):
            pixels = piece.to(self.device).float().div(127.5).sub(1.0)
            with autocast(self.device, bfloat16):
                latents = self.model.encode(pixels) if seen is None else self.model.encode(pixels, seen)
            tokens = rearrange(
                latents.float(), "b t (h dh) (w dw) c -> b (t h w) (dh dw c)", dh=self.patch, dw=self.patch
            )
            values.append(standardise(tokens, self.spec))
        return torch.cat(values, dim=1)

    @torch.no_grad()
    def decode_batch(
        self, values: Tensor, rows: int, columns: int, *, bfloat16: bool = False, past: Past | None = None
    ) -> Tensor:
        """Token values ``(B, N, C)`` on a grid of ``rows`` x ``columns`` tokens -> frames uint8 ``(B, T, H, W, 3)``."""
        grid = values.unflatten(1, (-1, rows, columns))
        frames = []
        pixels = self.spec.time_compression * rows * columns * self.spec.space_compression**2
        for piece, seen in self._pieces(grid, past, 1, pixels):
            latents = rearrange(
                unstandardise(piece.to(self.device).float(), self.spec),
                "b t h w (dh dw c) -> b t (h dh) (w dw) c",
                dh=self.patch,
                dw=self.patch,
            )
            with autocast(self.device, bfloat16):
                pixels = self.model.decode(latents) if seen is None else self.model.decode(latents, seen)
            frames.append(pixels.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8))
        return torch.cat(frames, dim=1)

    def decode(self, stream: TokenStream, fps: float | None = None) -> list[Image | Video]:
        """One medium per sample of the stream, on the CPU: what was encoded, or a video for generated tokens.

        ``fps`` is what was encoded, or read off the positions, where it is not given.

        Raises:
            UserError: NaN or infinite values, tokens that do not fill a grid, or generated tokens of one frame (which
                has no frame rate) without ``fps``.
        """
        check_stream(stream, self.spec)
        parts = list(samples(stream))
        if stream.extents and len(stream.extents) != len(parts):
            raise UserError(f"the stream has {len(parts)} samples and the extents of {len(stream.extents)}")
        extents = stream.extents or (Extent(),) * len(parts)
        grids = [self.grid(positions) for _, positions in parts]
        found: list[Image | Video | None] = [None] * len(parts)
        shapes = [self._media_shape(grid) for grid in grids]
        for group in same_shape(grids, self._at_once(shapes)):
            _, rows, columns = grids[group[0]]
            frames = self.decode_batch(torch.stack([parts[i][0] for i in group]), rows, columns).cpu()
            for i, clip in zip(group, frames, strict=True):
                e = extents[i]
                if e.frames:
                    if any(a > b for a, b in zip((e.frames, e.height, e.width), clip.shape, strict=False)):
                        size = " x ".join(map(str, clip.shape[:3]))
                        raise UserError(f"tokens of {size} frames, rows and columns cannot be cropped to {e}")
                    clip = clip[: e.frames, : e.height, : e.width].clone()
                if e.frames == 1 and not e.fps and fps is None:
                    found[i] = Image(clip[0])
                else:
                    found[i] = Video(clip, fps or e.fps or self.rate(parts[i][1]) or _no_rate())
        return [medium for medium in found if medium is not None]

    def decode_images(self, stream: TokenStream) -> list[Image]:
        """One image per sample; samples of more than one frame are refused."""
        images = []
        for medium in self.decode(stream, fps=1.0):
            assert isinstance(medium, Video)
            if len(medium.frames) > 1:
                raise UserError(f"decode_images takes samples of one frame, got {len(medium.frames)}; use decode")
            images.append(Image(medium.frames[0]))
        return images

    def filled(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """The size of a clip filled up to whole tokens: 1 + k c frames, rows and columns multiples of a token's.

        Raises:
            UserError: one of them is not positive.
        """
        if min(frames, height, width) < 1:
            raise UserError(f"a clip has at least one frame, row and column, got {frames} x {height} x {width}")
        step, cell = self.spec.time_compression, self.spec.space_compression
        return frames + -(frames - 1) % step, height + -height % cell, width + -width % cell

    def positions(self, frames: int, height: int, width: int, fps: float) -> Tensor:
        """Where the tokens of a clip are: float32 ``(N, 4)`` of (seconds, row, column, 0), time slowest.

        Seconds are the centre of the frames a latent frame covers: frame 0 for the first, frames
        c (j - 1) + 1 .. c j for the j-th. A single frame has no extent in time and is at 0 s, whatever ``fps`` is.
        A clip that does not fill its tokens has those of the filled one.
        """
        frames, height, width = self.filled(frames, height, width)
        seconds = self.times(0, 1 + (frames - 1) // self.spec.time_compression, fps) if frames > 1 else torch.zeros(1)
        return self.places(seconds, height // self.spec.space_compression, width // self.spec.space_compression)

    def times(self, first: int, count: int, fps: float) -> Tensor:
        """Seconds ``(count,)`` float32 of a clip's latent frames from ``first`` on."""
        step = self.spec.time_compression
        j = torch.arange(first, first + count, dtype=torch.float64)
        return (torch.where(j > 0, step * j + 1 - step / 2, 0.5) / fps).float()

    def places(self, seconds: Tensor, rows: int, columns: int) -> Tensor:
        """Positions ``(N, 4)`` of latent frames at ``seconds`` on a grid of ``rows`` x ``columns`` tokens."""
        axes = (seconds, torch.arange(rows).float(), torch.arange(columns).float(), torch.zeros(1))
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 4)

    def grid(self, positions: Tensor) -> tuple[int, int, int]:
        """Latent frames, rows and columns that the tokens of one sample ``(N, 4)`` fill.

        Raises:
            UserError: they fill none, in order of time, row and column.
        """
        rows, columns = int(positions[:, 1].max()) + 1, int(positions[:, 2].max()) + 1
        frames = len(positions) // (rows * columns)
        place = torch.arange(frames * rows * columns, device=positions.device) % (rows * columns)
        at = positions[:, 1] * columns + positions[:, 2]
        if len(positions) != len(place) or not torch.equal(at, place.float()):
            raise UserError(
                f"{len(positions)} tokens do not fill a grid of {rows} x {columns} in order of time, row and column"
            )
        return frames, rows, columns

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write config.json and the weights.

        ``dtype`` float16 halves the file; without it weights are stored as they were loaded (float32 when new). An
        adapter's are written by its library, in its own form.
        """
        codec = self.model.codec if isinstance(self.model, Tiled) else self.model
        on_disk.save_tokenizer(folder, self, codec, dtype or self.stored, patch=self.patch)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, download: bool = False) -> VideoTokenizer:
        """A saved tokenizer, from a folder or a hub id (weights as float32, on the CPU); see :func:`load_tokenizer`."""
        found = on_disk.load_tokenizer(source, download=download)
        if not isinstance(found, cls):
            raise UserError(f"{source} holds a {type(found).__name__}, not a {cls.__name__}; use load_tokenizer")
        return found

    @property
    def causal(self) -> bool:
        """Whether clips can go piece by piece with the same result."""
        return bool(getattr(self.model, "causal", False)) or self.spec.time_compression == 1

    def _pieces(self, x: Tensor, past: Past | None, step: int, pixels: int) -> Iterator[tuple[Tensor, Past | None]]:
        """``x (B, T, ...)`` in pieces that bound the memory, and what remembers those before.

        ``step`` of T are one latent frame of ``pixels``; where a clip begins, its first latent frame takes one of T.
        """
        latent = max(1, _PIXELS // (len(x) * pixels))
        if not self.causal or (past is None and x.shape[1] <= 1 + (latent - 1) * step):
            yield x, past
            return
        if self.spec.time_compression > 1:
            past = past or Past()
        start = 0
        while start < x.shape[1]:
            begins = start == 0 and (past is None or not past.started)
            length = 1 + (latent - 1) * step if begins else latent * step
            yield x[:, start : start + length], past
            start += length

    def _at_once(self, shapes: Sequence[tuple[int, ...]]) -> int:
        most = max((math.prod(shape) for shape in shapes), default=1)
        return max(1, min(_BATCH, _PIXELS // most))

    def _media_shape(self, grid: tuple[int, int, int]) -> tuple[int, int, int]:
        frames, rows, columns = grid
        cell = self.spec.space_compression
        return 1 + (frames - 1) * self.spec.time_compression, rows * cell, columns * cell

    def fill(self, frames: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """uint8 ``(T, H, W, 3)`` -> ``(*shape, 3)`` by repeating the last frame, row and column."""
        for axis, size in enumerate(shape):
            extra = size - frames.shape[axis]
            if extra:
                last = frames.narrow(axis, frames.shape[axis] - 1, 1)
                frames = torch.cat([frames, last.expand(*(extra if i == axis else -1 for i in range(4)))], dim=axis)
        return frames

    def rate(self, positions: Tensor) -> float:
        """Frames per second, from the positions ``(N, 4)`` of a clip from its beginning; 0 where it is one frame."""
        frames, rows, columns = self.grid(positions)
        if frames < 2:
            return 0.0
        seconds = positions[:: rows * columns, 0].double()
        # The centres of the first and the last latent frame are c k + 1/2 - c/2 frames apart for 1 + k latent frames.
        step = self.spec.time_compression
        return round((step * (frames - 1) + 0.5 - step / 2) / float(seconds[-1] - seconds[0]), 3)


def _no_rate() -> NoReturn:
    raise UserError("one frame has no frame rate; give decode its fps, or use decode_images")


def extent_of(medium: Image | Video) -> Extent:
    if isinstance(medium, Image):
        return Extent(1, medium.pixels.shape[0], medium.pixels.shape[1])
    frames, height, width = medium.frames.shape[:3]
    return Extent(frames, height, width, medium.fps)
