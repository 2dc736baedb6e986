"""What a tokenizer's run would take, before it takes it."""

from __future__ import annotations

import torch

from ..config import dump_yaml
from .parts import pick_device, pick_dtype
from .tokenizer_config import TokenizerTrainConfig
from .tokenizer_state import build_autoencoder, build_discriminator, count_parts
from .tokenizer_video_loss import Perceptual

#: Size of a frame assumed by the memory estimate where nothing says it.
_PIXELS = 64 * 64


def describe_tokenizer(config: TokenizerTrainConfig) -> str:
    """The dry run of a tokenizer's config: resolved settings, exact parameter counts, a memory estimate."""
    with torch.device("meta"):
        parts = count_parts(build_autoencoder(config))
        judge = count_parts(build_discriminator(config)) if config.adversarial.weight else {}
    total, judges = sum(parts.values()), sum(judge.values())
    device = pick_device(config.run.device)
    dtype = pick_dtype(config.run.precision, device)
    data, activations = (_video_bytes if config.video is not None else _audio_bytes)(config)
    weights = f"{_mib(total * 4 * 5)} for weights, gradients, AdamW and the average"
    lines = [
        dump_yaml(config).rstrip(),
        "",
        f"Parameters: {total:,}, of them",
        *(f"  {name:14} {count:>12,}" for name, count in parts.items()),
    ]
    if judges:
        first = round(config.adversarial.start * config.run.steps)
        lines.append(f"Discriminator: {judges:,} parameters, from step {first:,} on; not exported")
        weights += f", {_mib(judges * 4 * 4)} for the discriminator's"
    if config.video is not None and config.video.loss.perceptual != "none":
        lines.append(f"Perceptual term: {Perceptual.choose(config.video.loss)}")
    lines += [
        f"Device: {device}, matrix products in {str(dtype).removeprefix('torch.')}",
        f"Memory estimate: {weights}, {_mib(activations)} for activations of {config.run.batch} clips (without "
        f"those of LPIPS and the discriminator), {_mib(data)} for decoded data",
    ]
    return "\n".join(lines)


def _video_bytes(config: TokenizerTrainConfig) -> tuple[int, int]:
    """Data (clips of 33 frames, or stills, of 64 x 64 or a quarter wider than the crop) and activations, in bytes."""
    part = config.video
    assert part is not None
    m = part.model
    pixels = part.crop**2 or _PIXELS
    latent_frames = 1 + (part.frames - 1) // m.time_compression
    grids = {4: (m.fine_blocks, m.fine_width), 8: (m.blocks, m.width), 16: (m.deep_blocks, m.deep_width)}
    # A block keeps its input, what each mix and the norm give, and the hidden layer twice (before and after SiLU).
    kept = 4 + 2 * m.expansion
    values = 12 * part.frames * pixels * 3
    for side, (blocks, width) in grids.items():
        if side <= m.space_compression:
            values += 2 * kept * blocks * width * latent_frames * pixels // side**2
    values += kept * m.frame_blocks * m.frame_width * part.frames * pixels // 16
    frames = 33 if m.time_compression > 1 else 1
    stored = part.crop**2 * 25 // 16 or _PIXELS
    return config.data.max_clips * frames * stored * 3, config.run.batch * values * 4


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
