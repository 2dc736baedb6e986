"""Images and videos to token streams and back.

A :class:`VideoAutoencoder` turns 4 frames x 8 x 8 pixels into a latent cell; 2x2 cells make one
token, and values are standardised by the mean and deviation of each latent channel measured on
training data (both in the spec).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from . import folder as on_disk
from .errors import UserError
from .grids import autocast, check_stream, same_shape, samples, standardise, unstandardise
from .media import Image, Video
from .spec import TokenizerSpec
from .stream import TokenStream
from .video_autoencoder import SPACE_COMPRESSION, TIME_COMPRESSION, VideoAutoencoder, VideoAutoencoderConfig

#: Clips of equal shape encoded or decoded at once.
_BATCH = 8


class VideoTokenizer:
    """A video autoencoder with the spec of its latents; encodes stills as clips of one frame.

    Args:
        model: the autoencoder; put into evaluation mode.
        name: short id in the spec; a hash of the weights is appended.
        patch: latent cells per token along rows and along columns.
        mean, deviation: per latent channel, measured on training latents; None leaves latents as they are.
        train_shift, sample_shift, licence: see :class:`TokenizerSpec`.
    """

    def __init__(
        self,
        model: VideoAutoencoder,
        *,
        name: str = "video",
        patch: int = 2,
        mean: Tensor | None = None,
        deviation: Tensor | None = None,
        train_shift: float = 1.0,
        sample_shift: float = 1.0,
        licence: str = "Apache-2.0",
    ) -> None:
        self.model = model.eval()
        self.stored = torch.float32
        self.patch = patch
        cells = patch * patch
        self.spec = TokenizerSpec(
            name=f"{name}-{on_disk.weights_hash(model)}",
            modality="video",
            channels=model.config.latent_channels * cells,
            time_compression=TIME_COMPRESSION,
            space_compression=SPACE_COMPRESSION * patch,
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

    def encode(self, media: Sequence[Image | Video]) -> TokenStream:
        """Images and videos of any valid sizes -> one stream; shorter rows end in padding.

        Raises:
            UserError: frames that are not 1 + 4k, or rows and columns that do not fit into whole tokens.
        """
        if isinstance(media, Image | Video):
            raise UserError("encode takes a list of images and videos; put the one into a list")
        clips = [m.pixels[None] if isinstance(m, Image) else m.frames for m in media]
        rates = [0.0 if isinstance(m, Image) else m.fps for m in media]
        shapes = [tuple(clip.shape) for clip in clips]
        for frames, height, width, _ in shapes:
            self._check(frames, height, width)
        rows: list[TokenStream | None] = [None] * len(clips)
        for group in same_shape(shapes, _BATCH):
            values = self.encode_batch(torch.stack([clips[i] for i in group]))
            frames, height, width, _ = shapes[group[0]]
            for i, value in zip(group, values, strict=True):
                rows[i] = TokenStream.dense(value[None], self.positions(frames, height, width, rates[i] or 1.0))
        return TokenStream.pad([row for row in rows if row is not None])

    @torch.no_grad()
    def encode_batch(self, frames: Tensor, *, bfloat16: bool = False) -> Tensor:
        """Frames uint8 ``(B, T, H, W, 3)`` of one size -> token values float32 ``(B, N, C)``, no checks, no positions.

        ``bfloat16`` computes in bfloat16, which is quicker on devices that have it and exact to about 1 %.
        """
        pixels = frames.to(self.device).float().div(127.5).sub(1.0)
        with autocast(self.device, bfloat16):
            latents = self.model.encode(pixels)
        tokens = rearrange(latents.float(), "b t (h dh) (w dw) c -> b (t h w) (dh dw c)", dh=self.patch, dw=self.patch)
        return standardise(tokens, self.spec)

    @torch.no_grad()
    def decode_batch(self, values: Tensor, rows: int, columns: int, *, bfloat16: bool = False) -> Tensor:
        """Token values ``(B, N, C)`` on a grid of ``rows`` x ``columns`` tokens -> frames uint8 ``(B, T, H, W, 3)``."""
        latents = rearrange(
            unstandardise(values.to(self.device).float(), self.spec),
            "b (t h w) (dh dw c) -> b t (h dh) (w dw) c",
            h=rows,
            w=columns,
            dh=self.patch,
            dw=self.patch,
        )
        with autocast(self.device, bfloat16):
            frames = self.model.decode(latents)
        return frames.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)

    def decode(self, stream: TokenStream, fps: float | None = None) -> list[Video]:
        """One video per sample of the stream, on the CPU; ``fps`` is read off the positions where it is not given.

        Raises:
            UserError: tokens that do not fill a grid, or a still (which has no frame rate) without ``fps``.
        """
        check_stream(stream, self.spec)
        parts = list(samples(stream))
        grids = [self._grid(positions) for _, positions in parts]
        videos: list[Video | None] = [None] * len(parts)
        for group in same_shape(grids, _BATCH):
            _, rows, columns = grids[group[0]]
            frames = self.decode_batch(torch.stack([parts[i][0] for i in group]), rows, columns).cpu()
            for i, clip in zip(group, frames, strict=True):
                videos[i] = Video(clip, fps or _frame_rate(parts[i][1], rows * columns))
        return [video for video in videos if video is not None]

    def decode_images(self, stream: TokenStream) -> list[Image]:
        """One image per sample; samples of more than one frame are refused."""
        videos = self.decode(stream, fps=1.0)
        for video in videos:
            if len(video.frames) > 1:
                raise UserError(f"decode_images takes samples of one frame, got {len(video.frames)}; use decode")
        return [Image(video.frames[0]) for video in videos]

    def positions(self, frames: int, height: int, width: int, fps: float) -> Tensor:
        """Where the tokens of a clip are: float32 ``(N, 4)`` of (seconds, row, column, 0), time slowest.

        Seconds are the centre of the frames a latent frame covers: frame 0 for the first, frames
        4j-3 .. 4j for the j-th. A single frame has no extent in time and is at 0 s, whatever ``fps`` is.
        """
        self._check(frames, height, width)
        step, cell = TIME_COMPRESSION, self.spec.space_compression
        later = torch.arange(1, 1 + (frames - 1) // step, dtype=torch.float64)
        seconds = torch.cat([torch.tensor([0.5 if frames > 1 else 0.0]), step * later + 1 - step / 2]) / fps
        rows, columns = torch.arange(height // cell), torch.arange(width // cell)
        grid = torch.meshgrid(seconds.float(), rows.float(), columns.float(), torch.zeros(1), indexing="ij")
        return torch.stack(grid, dim=-1).view(-1, 4)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write config.json and model.safetensors.

        ``dtype`` float16 halves the file; without it weights are stored as they were loaded (float32 when new).
        """
        config = {"model": asdict(self.model.config), "patch": self.patch, "spec": self.spec.to_dict()}
        on_disk.save(folder, type(self).__name__, self.model, config, dtype or self.stored)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> VideoTokenizer:
        """Load a saved tokenizer (weights as float32, on the CPU)."""
        data = on_disk.read_config(folder)
        if data["class"] != cls.__name__:
            raise UserError(f"{folder} holds a {data['class']}, not a {cls.__name__}; use load_tokenizer")
        model = VideoAutoencoder(on_disk.sizes_from(VideoAutoencoderConfig, data["model"], folder))
        stored = on_disk.load_weights(model, folder)
        tokenizer = cls(model, patch=data["patch"])
        tokenizer.spec, tokenizer.stored = TokenizerSpec.from_dict(data["spec"]), stored
        return tokenizer

    def _check(self, frames: int, height: int, width: int) -> None:
        if frames < 1 or (frames - 1) % TIME_COMPRESSION:
            below = max(1, frames - (frames - 1) % TIME_COMPRESSION)
            raise UserError(
                f"a clip has 1 + 4k frames, got {frames}; the nearest are {below} and {below + TIME_COMPRESSION}"
            )
        cell = self.spec.space_compression
        for what, size in (("height", height), ("width", width)):
            if size < 1 or size % cell:
                below = size - size % cell
                near = f"{below} or {below + cell}" if below else str(cell)
                raise UserError(f"a picture's {what} is a multiple of {cell} pixels, got {size}; resize it to {near}")

    def _grid(self, positions: Tensor) -> tuple[int, ...]:
        """Latent frames, rows and columns that the tokens of one sample fill, in order."""
        rows, columns = int(positions[:, 1].max()) + 1, int(positions[:, 2].max()) + 1
        frames = len(positions) // (rows * columns)
        place = torch.arange(frames * rows * columns, device=positions.device) % (rows * columns)
        at = positions[:, 1] * columns + positions[:, 2]
        if len(positions) != len(place) or not torch.equal(at, place.float()):
            raise UserError(
                f"{len(positions)} tokens do not fill a grid of {rows} x {columns} in order of time, row and column"
            )
        return frames, rows, columns


def _frame_rate(positions: Tensor, cells: int) -> float:
    """Frames per second, from the times of a clip's latent frames."""
    seconds = positions[::cells, 0].double()
    if len(seconds) < 2:
        raise UserError("one frame has no frame rate; give decode its fps, or use decode_images")
    # The centres of the first and the last latent frame are 4k - 1.5 frames apart for 1 + k latent frames.
    rate = (TIME_COMPRESSION * (len(seconds) - 1) + 1 - TIME_COMPRESSION / 2 - 0.5) / float(seconds[-1] - seconds[0])
    return round(rate, 3)
