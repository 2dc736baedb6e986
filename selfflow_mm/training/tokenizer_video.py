"""What is particular to training a video tokenizer: its clips, loss, evaluation and report cards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfflow_tokenizers.initialise import fit_linear_video
from selfflow_tokenizers.media import Image, Video
from selfflow_tokenizers.video_autoencoder import SPACE_COMPRESSION, VideoAutoencoder
from selfflow_tokenizers.video_tokenizer import VideoTokenizer

from ..data.shards import ShardDataset
from ..data.writing import encode_mp4, encode_png
from ..evaluation.page import Card, film_strip
from ..evaluation.reconstruction import moving, psnr
from ..randomness import Randomness
from .tokenizer_config import TokenizerTrainConfig, VideoPart
from .tokenizer_data import Clips, cut_places, load_frames
from .tokenizer_losses import video_loss

#: Clips whose blocks the linear start is fitted to, and whose latents give the statistics.
_FIT, _MEASURE = 128, 512


@dataclass
class VideoTask:
    """The video half of :mod:`tokenizer_loop`; ``AudioTask`` has the same methods."""

    config: TokenizerTrainConfig
    part: VideoPart
    clips: Clips

    @classmethod
    def load(cls, config: TokenizerTrainConfig, data: ShardDataset) -> VideoTask:
        assert config.video is not None
        multiple = SPACE_COMPRESSION * config.video.patch
        return cls(config, config.video, load_frames(data, config.data.max_clips, config.data.held_out, multiple))

    @property
    def count(self) -> int:
        return len(self.clips.train)

    def fit_linear(self, model: nn.Module) -> None:
        assert isinstance(model, VideoAutoencoder)
        fit_linear_video(model, _pixels(self._cut(range(0, self.count, -(-self.count // _FIT)))))

    def batch(self, random: Randomness, step: int, ids: Tensor) -> Tensor:
        """uint8 ``(B, T, H, W, 3)``: each clip cut at its own random place."""
        length = self._length(ids.tolist())
        room = torch.tensor([len(self.clips.train[i]) - length for i in ids.tolist()])
        starts = cut_places(random, "cut", step, ids, room)
        chosen = zip(ids.tolist(), starts, strict=True)
        return torch.stack([self.clips.train[i][s : s + length] for i, s in chosen])

    def loss(self, model: nn.Module, batch: Tensor, noise: Tensor, bfloat16: bool) -> dict[str, Tensor]:
        assert isinstance(model, VideoAutoencoder)
        frames = _pixels(batch)
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=bfloat16):
            latents = model.encode(frames)
            output = model.decode(latents + noise.view_as(latents))
        return video_loss(output.float(), frames, self.part.loss)

    def latent_values(self, batch: Tensor) -> int:
        """Latent values per clip of a batch."""
        time, height, width = batch.shape[1:4]
        cells = (1 + (time - 1) // 4) * (height // SPACE_COMPRESSION) * (width // SPACE_COMPRESSION)
        return cells * self.part.model.latent_channels

    def tokenizer(self, model: nn.Module, statistics: tuple[Tensor, Tensor] | None) -> VideoTokenizer:
        assert isinstance(model, VideoAutoencoder)
        mean, deviation = statistics or (None, None)
        c = self.config
        return VideoTokenizer(
            model,
            name=c.name,
            patch=self.part.patch,
            mean=mean,
            deviation=deviation,
            train_shift=c.train_shift,
            sample_shift=c.sample_shift,
        )

    def measure(self, model: nn.Module, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each latent channel over whole training clips."""
        assert isinstance(model, VideoAutoencoder)
        chosen = range(0, self.count, -(-self.count // _MEASURE))
        total = []
        with torch.no_grad():
            for i in chosen:
                total.append(model.encode(_pixels(self.clips.train[i][None].to(device))).flatten(0, -2).cpu())
        latents = torch.cat(total).double()
        return latents.mean(0).float(), latents.std(0).clamp_min(1e-3).float()

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

    def cards(self, tokenizer: Any, most: int = 8) -> list[Card]:
        """Original and reconstruction side by side."""
        cards = []
        for frames, caption in list(zip(self.clips.held_out, self.clips.captions, strict=True))[:most]:
            output = _reconstruct(tokenizer, frames)
            both = torch.cat([frames, output], dim=2)
            details = {"PSNR": f"{psnr(output, frames):.1f} dB", "left": "original", "right": "reconstruction"}
            if len(frames) == 1:
                cards.append(Card(caption, encode_png(Image(both[0])), "image", (), details))
                continue
            strips = tuple(film_strip(Video(f, self.clips.fps)) for f in (frames, output))
            cards.append(Card(caption, encode_mp4(Video(both, self.clips.fps)), "video", strips, details))
        return cards

    def _length(self, ids: list[int]) -> int:
        shortest = min(len(self.clips.train[i]) for i in ids)
        return min(self.part.frames, shortest - (shortest - 1) % 4)

    def _cut(self, ids: range) -> Tensor:
        length = self._length(list(ids))
        return torch.stack([self.clips.train[i][:length] for i in ids])


def _pixels(frames: Tensor) -> Tensor:
    return frames.float().div(127.5).sub(1.0)


def _reconstruct(tokenizer: VideoTokenizer, frames: Tensor) -> Tensor:
    cell = tokenizer.spec.space_compression
    values = tokenizer.encode_batch(frames[None])
    return tokenizer.decode_batch(values, frames.shape[1] // cell, frames.shape[2] // cell)[0].cpu()
