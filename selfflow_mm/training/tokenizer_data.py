"""Training clips in memory: decoded once, cut at random places addressed by (seed, step, sample)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from ..data.resampling import mix_channels, resample
from ..data.shards import Sample, ShardDataset
from ..errors import UserError
from ..evaluation.media_set import held_out_places, spread
from ..randomness import Randomness


@dataclass(frozen=True)
class Clips:
    """Decoded media of a data set.

    Attributes:
        train: tensors to train on, time in the first dimension for frames, in the last for sounds.
        held_out: samples only the evaluation sees.
        fps: frame rate of the first sample; 1 for stills.
        captions: of the held-out samples, where they have one, else their keys.
    """

    train: list[Tensor]
    held_out: list[Tensor]
    fps: float
    captions: list[str]


def load_frames(data: ShardDataset, most: int, held_out: int, multiple: int, step: int, crop: int = 0) -> Clips:
    """uint8 frames ``(T, H, W, 3)`` of videos (or stills, T = 1), T being 1 + ``step`` k.

    Without ``crop`` all are of one size, a ``multiple`` of pixels. With it training clips are of any sizes from
    ``crop`` up, smaller ones having been filled up, and held-out ones are cut to multiples around their centre.
    """

    def frames(sample: Sample) -> tuple[Tensor, float] | None:
        if sample.video is not None:
            clip = sample.video.frames
            return clip[: len(clip) - (len(clip) - 1) % step], sample.video.fps
        if sample.image is not None:
            return sample.image.pixels[None], 1.0
        return None

    clips = _load(data, most, held_out, frames)
    if crop:
        train = [fill(clip, crop) for clip in clips.train]
        return replace(clips, train=train, held_out=[centre(fill(c, multiple), multiple) for c in clips.held_out])
    sizes = {tuple(c.shape[1:3]) for c in (*clips.train, *clips.held_out)}
    if len(sizes) > 1:
        raise UserError(
            f"{data.source}: pictures differ in size ({_some(sizes)}); set video.crop to train on squares cut out of "
            f"them, or run `selfflow-mm prepare` first"
        )
    height, width = sizes.pop()
    if height % multiple or width % multiple:
        raise UserError(
            f"{data.source}: pictures of {height} x {width} pixels do not divide into tokens of {multiple} x "
            f"{multiple}; set video.crop, or run `selfflow-mm prepare` to resize them"
        )
    return clips


def fill(frames: Tensor, side: int) -> Tensor:
    """``(T, H, W, 3)`` with rows and columns repeated at the borders until both sides have ``side`` pixels."""
    for axis in (1, 2):
        size = frames.shape[axis]
        if size < side:
            before = (side - size) // 2
            places = (torch.arange(side) - before).clamp(0, size - 1)
            frames = frames.index_select(axis, places)
    return frames


def centre(frames: Tensor, multiple: int) -> Tensor:
    """The middle of ``(T, H, W, 3)`` whose sides are multiples of ``multiple``."""
    height, width = (size - size % multiple for size in frames.shape[1:3])
    return cut(frames, height, width, (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2)


def cut(frames: Tensor, height: int, width: int, row: int, column: int) -> Tensor:
    return frames[:, row : row + height, column : column + width]


def load_waveforms(data: ShardDataset, most: int, held_out: int, rate: int, channels: int) -> Clips:
    """float32 waveforms ``(channels, samples)``, resampled and mixed to ``rate`` and ``channels`` where they differ."""

    def waveform(sample: Sample) -> tuple[Tensor, float] | None:
        if sample.audio is None:
            return None
        wave = mix_channels(resample(sample.audio, rate), channels).waveform
        if not bool(torch.isfinite(wave).all()):
            raise UserError(f"sample '{sample.key}' of {data.source} has NaN or infinite samples")
        return wave, 1.0

    return _load(data, most, held_out, waveform)


def _load(
    data: ShardDataset, most: int, held_out: int, decode: Callable[[Sample], tuple[Tensor, float] | None]
) -> Clips:
    """Decode evenly spread samples; those for which ``decode`` gives None are left out, and said to be."""
    places = spread(len(data), most)
    decoded: list[tuple[Tensor, float, str]] = []
    missing: list[str] = []
    for place in tqdm(places, desc="decoding", unit="clip"):
        sample = data[place]
        found = decode(sample)
        if found is None:
            missing.append(sample.key)
        else:
            decoded.append((*found, sample.captions[0] if sample.captions else sample.key))
    if missing:
        left = f"left out {len(missing)} of {len(places)} samples without the medium to train on"
        tqdm.write(f"{left}, such as '{missing[0]}'")
    count = len(decoded)
    if count < 2:
        raise UserError(f"{data.source} has {count} usable samples; training a tokenizer needs at least 2")
    apart = set(held_out_places(count, held_out))
    test = [item for i, item in enumerate(decoded) if i in apart]
    train = [item[0] for i, item in enumerate(decoded) if i not in apart]
    return Clips(train, [item[0] for item in test], decoded[0][1], [item[2] for item in test])


def draw(random: Randomness, step: int, batch: int, clips: int) -> Tensor:
    """``(batch,)`` indices of the clips of a step: every epoch is a permutation of all of them."""
    places = range(step * batch, (step + 1) * batch)
    orders = {e: random.permutation("clips", e, clips) for e in {p // clips for p in places}}
    return torch.stack([orders[p // clips][p % clips] for p in places])


def cut_places(random: Randomness, purpose: str, step: int, ids: Tensor, room: Tensor) -> list[int]:
    """For each clip a start in 0 .. ``room`` (inclusive)."""
    u = random.uniform(purpose, step, ids)[:, 0].double()
    return [min(int(a * (r + 1)), r) for a, r in zip(u.tolist(), room.tolist(), strict=True)]


def _some(sizes: set[tuple[int, ...]]) -> str:
    named = [f"{h} x {w}" for h, w in sorted(sizes)]
    return ", ".join(named[:3]) + (" and others" if len(named) > 3 else "")
