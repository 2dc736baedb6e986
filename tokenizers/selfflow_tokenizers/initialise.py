"""Start an autoencoder at the best linear one: principal components of training data.

New blocks add nothing (their last layer is zero), so a new autoencoder is a chain of linear layers
around a tanh. Its layers are set to principal components, stage by stage, of what the stage before
gives: short training starts from there instead of from noise. (For a given number of values per
block no linear code has a smaller squared error: Eckart and Young 1936.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .audio_autoencoder import AudioAutoencoder
from .latent import bias_for
from .video_autoencoder import VideoAutoencoder, cut_blocks

#: Deviation of new latents: before the tanh, nearly linear for most and bounded for the rest; or that of the prior.
_DEVIATION = {"bounded": 0.5, "gaussian": 1.0}
#: Log-variance of new gaussian latents: small against their own, so that reconstruction comes first.
_LOG_VARIANCE = -6.0


@torch.no_grad()
def fit_linear_video(model: VideoAutoencoder, frames: Tensor) -> None:
    """Set the linear path of ``model`` to nested principal components of ``frames`` ``(B, T, H, W, 3)`` in [-1, 1].

    Does nothing beyond what the widths allow: a stage narrower than its input keeps the largest components.
    """
    c = model.config
    enc: Any = model.encoder
    dec: Any = model.decoder
    blocks = cut_blocks(frames, c.time_compression)
    block_mean, basis, _ = principal(blocks, c.fine_width)
    _project(enc["stem"], basis, block_mean)
    fine = enc["stem"](blocks)
    x = fine
    stages = [("down", "up", c.width)] + [("deep_down", "deep_up", c.deep_width)] * (c.space_compression == 16)
    for down, up, width in stages:
        cells = rearrange(x, "b t (h dh) (w dw) c -> b t h w (dh dw c)", dh=2, dw=2)
        cell_mean, cell_basis, _ = principal(cells, width)
        _project(enc[down], cell_basis, cell_mean)
        _set(dec[up], cell_basis, cell_mean)
        x = enc[down](cells)
    code_mean, code_basis, deviation = principal(x, c.latent_channels)
    gain = _DEVIATION[c.latent] / deviation.clamp_min(1e-4)
    _project(enc["head"], code_basis * gain, code_mean)
    _set(dec["stem"], code_basis / gain, code_mean)
    if c.latent == "gaussian":
        enc["head"].bias[c.latent_channels :] = bias_for(_LOG_VARIANCE)
    # The last stage holds the pixels of a 4x4 block of one frame in its first 48 channels.
    pixels = min(dec["head"].out_features, c.frame_width)
    time = c.time_compression
    frames_out = dec["frames"].weight.new_zeros(time, c.frame_width, c.fine_width)
    frames_out[:, :pixels, : basis.shape[1]] = basis.unflatten(0, (time, -1))[:, :pixels]
    offsets = frames_out.new_zeros(time, c.frame_width)
    offsets[:, :pixels] = block_mean.unflatten(0, (time, -1))[:, :pixels]
    dec["frames"].weight.copy_(frames_out.flatten(0, 1))
    dec["frames"].bias.copy_(offsets.flatten())
    _set(dec["head"], torch.eye(dec["head"].out_features, pixels), torch.zeros(dec["head"].out_features))


@torch.no_grad()
def fit_linear_audio(model: AudioAutoencoder, waveforms: Tensor, balance: float = 0.0) -> None:
    """Set the linear path of ``model`` to an MDCT and nested principal components of ``(B, channels, samples)``.

    The MDCT (Princen and Bradley 1986) with a sine window is its own inverse under overlap-add. The
    components are those of the second moment, not of the covariance, because the layers have no bias.

    ``balance`` evens out how loud the MDCT's bands are before components are chosen: at 1 all are as loud, at 0 they
    stay as they are, and components then go to the loud ones, mostly the low ones, alone.
    """
    c = model.config
    transform = model.analysis.weight.new_zeros(c.widths[0], c.channels, 2 * c.frame)
    for channel in range(c.channels):
        rows = slice(channel * c.frame, (channel + 1) * c.frame)
        room = transform[rows, channel]
        room.copy_(mdct_basis(c.frame)[: len(room)])
    frames = model.cut_frames(waveforms)
    level = (frames @ transform.flatten(1).T).square().mean((0, 1)).sqrt()
    gain = (level.square().mean().sqrt() / level.clamp_min(1e-3 * float(level.max()) + 1e-12)) ** balance
    model.analysis.weight.copy_(transform.flatten(1) * gain[:, None])
    model.synthesis.weight.copy_(transform.flatten(1).T / gain)
    x = model.analysis(frames)
    down: Any
    up: Any
    for stride, down, up in zip(c.strides, model.down, model.up, strict=True):
        x = x.unflatten(1, (-1, stride)).flatten(2)
        _, basis, _ = principal(x, down.out_features, centred=False)
        _project(down, basis, None)
        _set(up, basis, None)
        x = down(x)
    _, basis, deviation = principal(x, c.latent_channels, centred=False)
    gain = _DEVIATION[c.latent] / deviation.clamp_min(1e-4 * float(deviation.max()) + 1e-8)
    _project(model.to_latents, basis * gain, None)
    if model.to_log_variance is not None:
        nn.init.zeros_(model.to_log_variance.weight)
        nn.init.constant_(model.to_log_variance.bias, bias_for(_LOG_VARIANCE))
    _set(model.from_latents, basis / gain, None)


def principal(x: Tensor, count: int, *, centred: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``(C,)``, the ``count`` largest principal directions ``(C, k)`` (k <= C), and deviations along them."""
    rows = x.reshape(-1, x.shape[-1]).double()
    mean = rows.mean(0) if centred else torch.zeros_like(rows[0])
    rows = rows - mean
    energy, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
    directions, energy = directions.flip(1)[:, :count], energy.flip(0)[:count]
    # The sign of an eigenvector is arbitrary; fix it, so that other libraries give the same start.
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return mean.float(), (directions * largest.sign()).float(), energy.clamp_min(0).sqrt().float()


def mdct_basis(size: int) -> Tensor:
    """``(size, 2 * size)``: the orthonormal lapped cosines of the MDCT, sine window included."""
    n, k = torch.arange(2 * size, dtype=torch.float64) + 0.5, torch.arange(size, dtype=torch.float64) + 0.5
    window = torch.sin(math.pi * n / (2 * size))
    return (window * torch.cos(math.pi / size * (n + size / 2) * k[:, None]) * math.sqrt(2 / size)).float()


def _project(layer: nn.Module, basis: Tensor, mean: Tensor | None) -> None:
    """Make ``layer`` compute the coordinates of ``x - mean`` in ``basis``; outputs beyond them are zero."""
    _set(layer, basis.T, None if mean is None else -(mean @ basis))


def _set(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Write ``weight`` and ``bias`` into the first rows and columns of a linear layer; the rest is zero."""
    assert isinstance(layer, nn.Linear)
    rows, columns = weight.shape
    layer.weight.copy_(F.pad(weight, (0, layer.in_features - columns, 0, layer.out_features - rows)))
    if layer.bias is not None:
        layer.bias.zero_()
        if bias is not None:
            layer.bias[: len(bias)] = bias
