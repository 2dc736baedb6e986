"""What a tokenizer's run would take, before it takes it."""

from __future__ import annotations

import torch

from ..config import dump_yaml
from .parts import pick_device, pick_dtype
from .tokenizer_config import TokenizerTrainConfig
from .tokenizer_loop import build_autoencoder, count_parts

#: Size of a frame assumed by the memory estimate where no data set is named.
_PIXELS = 64 * 64


def describe_tokenizer(config: TokenizerTrainConfig) -> str:
    """The dry run of a tokenizer's config: resolved settings, exact parameter counts, a memory estimate."""
    with torch.device("meta"):
        parts = count_parts(build_autoencoder(config))
    total = sum(parts.values())
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    data, activations = (_video_bytes if config.video is not None else _audio_bytes)(config)
    lines = [
        dump_yaml(config).rstrip(),
        "",
        f"Parameters: {total:,}, of them",
        *(f"  {name:14} {count:>12,}" for name, count in parts.items()),
        f"Device: {device}, matrix products in {str(dtype).removeprefix('torch.')}",
        f"Memory estimate: {_mib(total * 4 * 5)} for weights, gradients, AdamW and the average, "
        f"{_mib(activations)} for activations of {config.run.batch} clips, {_mib(data)} for decoded data",
    ]
    return "\n".join(lines)


def _video_bytes(config: TokenizerTrainConfig) -> tuple[int, int]:
    """Data (clips of 33 frames of 64 x 64) and activations, in bytes."""
    part = config.video
    assert part is not None
    m, latent_frames = part.model, 1 + (part.frames - 1) // 4
    fine, coarse = latent_frames * _PIXELS // 16, latent_frames * _PIXELS // 64
    # A block keeps its input, what each mix and the norm give, and the hidden layer twice (before and after SiLU).
    kept = 4 + 2 * m.expansion
    values = 2 * kept * (m.fine_blocks * fine * m.fine_width + m.blocks * coarse * m.width)
    values += kept * m.frame_blocks * 4 * fine * m.frame_width + 12 * part.frames * _PIXELS * 3
    return config.data.max_clips * 33 * _PIXELS * 3, config.run.batch * values * 4


def _audio_bytes(config: TokenizerTrainConfig) -> tuple[int, int]:
    """Data (sounds of 2 s) and activations, in bytes."""
    part = config.audio
    assert part is not None
    m, length = part.model, part.latents * part.model.samples_per_latent
    values, rate = 0, length // m.frame
    for width, blocks, stride in zip(m.widths, m.blocks, (*m.strides, 1), strict=True):
        values += 2 * (3 + 2 * m.expansion) * blocks * rate * width
        rate //= stride
    # Per window, of both sounds, their channels and their sum: complex spectra of overlap / 2 bins a sample.
    values += len(part.loss.windows) * 2 * (m.channels + 1) * part.loss.overlap * length * 2
    return config.data.max_clips * 2 * m.sample_rate * m.channels * 4, config.run.batch * values * 4


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
