"""What is particular to training a tokenizer of pictures: its clips, loss, discriminator, evaluation and report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfflow_tokenizers.initialise import fit_linear_video
from selfflow_tokenizers.isometry import isometric, pullback_metric
from selfflow_tokenizers.media import Image, Video
from selfflow_tokenizers.video_autoencoder import VideoAutoencoder
from selfflow_tokenizers.video_tokenizer import VideoTokenizer

from ..data.shards import ShardDataset
from ..data.writing import encode_mp4, encode_png
from ..errors import UserError
from ..evaluation.page import Card, film_strip
from ..evaluation.reconstruction import moving, psnr
from ..randomness import Randomness
from .tokenizer_config import TokenizerTrainConfig, VideoPart
from .tokenizer_data import Clips, centre, cut, cut_places, load_frames
from .tokenizer_latents import LatentStatistics, measure
from .tokenizer_video_loss import Perceptual, video_loss

#: Clips whose blocks the linear start is fitted to, whose latents give the statistics, and the decoder's metric.
_FIT, _MEASURE, _METRIC = 128, 512, 24
#: How much brighter than it is an error is shown.
_ERROR_GAIN = 4


@dataclass
class VideoTask:
    """The picture half of :mod:`tokenizer_loop`; ``AudioTask`` has the same methods."""

    config: TokenizerTrainConfig
    part: VideoPart
    clips: Clips
    perceptual: Perceptual

    def __post_init__(self) -> None:
        smallest = self.part.crop or min(self.clips.train[0].shape[1:3])
        needed = 3 * 2**self.part.adversarial.layers
        if self.part.adversarial.weight and smallest < needed:
            raise UserError(
                f"a discriminator of {self.part.adversarial.layers} layers needs pictures of {needed} pixels or more "
                f"in each side, got {smallest}; lower video.adversarial.layers"
            )
        self.perceptual.check(smallest)

    @classmethod
    def load(cls, config: TokenizerTrainConfig, data: ShardDataset, began_with: str | None = None) -> VideoTask:
        """Decode the data; ``began_with`` is the perceptual term of a run that goes on, which keeps it."""
        part = config.video
        assert part is not None
        perceptual = Perceptual(part.loss, began_with)
        most, apart = config.data.max_clips, config.data.held_out
        step = part.model.time_compression
        return cls(config, part, load_frames(data, most, apart, part.multiple, step, part.crop), perceptual)

    @property
    def count(self) -> int:
        return len(self.clips.train)

    def to(self, device: torch.device) -> None:
        """Move what the loss holds."""
        self.perceptual.to(device)

    def notes(self) -> list[str]:
        """What the log and the report say of choices that were made here."""
        return [] if self.perceptual.kind == "none" else [f"Perceptual term: {self.perceptual.choice}."]

    def fit_linear(self, model: nn.Module) -> None:
        assert isinstance(model, VideoAutoencoder)
        ids = range(0, self.count, -(-self.count // _FIT))
        length = self._length(list(ids))
        height, width = self._size()
        frames = []
        for i in ids:
            clip = self.clips.train[i]
            row, column = (clip.shape[1] - height) // 2, (clip.shape[2] - width) // 2
            frames.append(cut(clip[:length], height, width, row, column))
        fit_linear_video(model, _pixels(torch.stack(frames)))

    def batch(self, random: Randomness, step: int, ids: Tensor) -> Tensor:
        """uint8 ``(B, T, H, W, 3)``: each clip cut at its own random time and, with ``crop``, place."""
        clips = [self.clips.train[i] for i in ids.tolist()]
        length = self._length(ids.tolist())
        height, width = self._size()
        wanted = (("cut", 0, length), ("row", 1, height), ("column", 2, width))
        places = []
        for purpose, axis, size in wanted:
            room = torch.tensor([clip.shape[axis] - size for clip in clips])
            places.append(cut_places(random, purpose, step, ids, room))
        chosen = zip(clips, *places, strict=True)
        return torch.stack([cut(clip[s : s + length], height, width, r, c) for clip, s, r, c in chosen])

    def media(self, batch: Tensor) -> Tensor:
        """What the autoencoder takes: float in [-1, 1]."""
        return _pixels(batch)

    def terms(
        self, output: Tensor, target: Tensor, random: Randomness, step: int, ids: Tensor, bfloat16: bool
    ) -> dict[str, Tensor]:
        terms = video_loss(output, target, self.part.loss)
        if self.perceptual.kind != "none":
            frames = _pick(random, "perceptual", step, ids, output.shape[1], self.part.loss.perceptual_frames)
            with torch.autocast(output.device.type, torch.bfloat16, enabled=bfloat16):
                terms["perceptual"] = self.perceptual(output, target, frames).float()
        return terms

    def views(self, media: Tensor, target: Tensor, random: Randomness, step: int, ids: Tensor) -> Tensor:
        """What the discriminator sees of clips: pictures ``(B n, 3 span, H, W)``, each with the frames before it.

        The first frame stands for those before it, so that a still is a clip in which nothing moves.
        """
        a = self.part.adversarial
        ends = _pick(random, "judged", step, ids, media.shape[1], a.frames)
        frames = (ends[..., None] + torch.arange(1 - a.span, 1)).clamp_min(0).to(media.device)
        rows = torch.arange(len(media), device=media.device)[:, None, None]
        return media[rows, frames].permute(0, 1, 2, 5, 3, 4).flatten(0, 1).flatten(1, 2)

    def last_layer(self, model: nn.Module) -> Tensor:
        """Weight of the decoder's last layer, at which gradients are balanced."""
        assert isinstance(model, VideoAutoencoder)
        return model.decoder["head"].weight  # type: ignore[return-value]

    def tokenizer(self, model: nn.Module, statistics: LatentStatistics | None) -> VideoTokenizer:
        assert isinstance(model, VideoAutoencoder)
        c = self.config
        return VideoTokenizer(
            model,
            name=c.name,
            patch=self.part.patch,
            mean=None if statistics is None else statistics.mean,
            deviation=None if statistics is None else statistics.deviation,
            train_shift=c.train_shift,
            sample_shift=c.sample_shift,
        )

    def finish(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The trained model, with isometric latents where the config asks for them."""
        assert isinstance(model, VideoAutoencoder)
        if not self.part.model.isometric:
            return model
        return isometric(model, pullback_metric(model, self._whole(_METRIC, device)))

    def measure(self, model: nn.Module, device: torch.device) -> LatentStatistics:
        """Of whole training clips, cut to multiples of a token."""
        return measure(model, self._whole(_MEASURE, device), device)

    def _whole(self, most: int, device: torch.device) -> Iterator[Tensor]:
        """At most so many training clips ``(1, T, H, W, 3)``, evenly spread."""
        chosen = range(0, self.count, -(-self.count // most))
        return (_pixels(centre(self.clips.train[i], self.part.multiple)[None].to(device)) for i in chosen)

    def evaluate(self, tokenizer: Any) -> dict[str, float]:
        """Means over held-out clips: ``psnr`` and, for videos, ``object_psnr`` (the moving pixels alone), in dB."""
        whole, objects = [], []
        for frames in self.clips.held_out:
            output = _reconstruct(tokenizer, frames)
            whole.append(psnr(output, frames))
            objects.append(psnr(output, frames, moving(frames)))
        objects = [x for x in objects if not math.isnan(x)]
        scores = {"psnr": sum(whole) / len(whole)}
        if objects:
            scores["object_psnr"] = sum(objects) / len(objects)
        return scores

    def cards(self, tokenizer: Any, most: int = 8) -> list[list[Card]]:
        """For each held-out clip a row: original and reconstruction, and where they differ."""
        rows = []
        for frames, caption in list(zip(self.clips.held_out, self.clips.captions, strict=True))[:most]:
            output = _reconstruct(tokenizer, frames)
            error = ((output.int() - frames.int()).abs() * _ERROR_GAIN).clamp_max(255).to(torch.uint8)
            found = {"PSNR": f"{psnr(output, frames):.1f} dB"}
            shown = {"shown": f"difference, {_ERROR_GAIN} times"}
            if len(frames) == 1:
                still = [encode_png(Image(f[0])) for f in (frames, output, error)]
                names = {"shown": "original"}, {"shown": "reconstruction", **found}, shown
                rows.append([Card(caption, s, "image", (), n) for s, n in zip(still, names, strict=True)])
                continue
            # One player for both: side by side and in step, which two players never are.
            both = encode_mp4(Video(torch.cat([frames, output], dim=2), self.clips.fps))
            strips = [film_strip(Video(f, self.clips.fps)) for f in (frames, output, error)]
            sides = {"left": "original", "right": "reconstruction", **found}
            away = encode_mp4(Video(error, self.clips.fps))
            rows.append([
                Card(caption, both, "video", tuple(strips[:2]), sides),
                Card(caption, away, "video", tuple(strips[2:]), shown),
            ])  # fmt: skip
        return rows

    def _size(self) -> tuple[int, int]:
        """Height and width of what is trained on."""
        crop = self.part.crop
        height, width = self.clips.train[0].shape[1:3]
        return (crop, crop) if crop else (height, width)

    def _length(self, ids: list[int]) -> int:
        shortest = min(len(self.clips.train[i]) for i in ids)
        return min(self.part.frames, shortest - (shortest - 1) % self.part.model.time_compression)


def _pick(random: Randomness, purpose: str, step: int, ids: Tensor, frames: int, count: int) -> Tensor:
    """``(B, n)`` different frames of each clip, ``count`` of them (0: all), drawn anew each step."""
    order = random.bits(purpose, step, ids, frames).argsort(dim=1, stable=True)
    return order[:, : count or frames].sort(dim=1).values


def _pixels(frames: Tensor) -> Tensor:
    return frames.float().div(127.5).sub(1.0)


def _reconstruct(tokenizer: VideoTokenizer, frames: Tensor) -> Tensor:
    cell = tokenizer.spec.space_compression
    values = tokenizer.encode_batch(frames[None])
    return tokenizer.decode_batch(values, frames.shape[1] // cell, frames.shape[2] // cell)[0].cpu()
