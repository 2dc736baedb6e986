"""A stereo audio autoencoder: 640 samples per latent (25 latents a second at 16 kHz), bounded latents.

The waveform is cut into short overlapping frames by a learned filter bank, taken down to the
latent rate in steps of ``strides``, and back up; the last layer is a learned synthesis filter bank
with overlap-add. Every layer has a finite reach and none has a bias, so digital silence becomes
zero latents and zero latents become digital silence, whatever the weights are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError
from .latent import LatentKind, mean_of, split_posterior
from .layers import Block, SoundMix

#: Mean square under which the norms stop amplifying.
_FLOOR = 1e-3


@dataclass(frozen=True)
class AudioAutoencoderConfig:
    """Sizes of an :class:`AudioAutoencoder`.

    Attributes:
        channels: channels of the waveform (2 is stereo).
        sample_rate: samples per second.
        latent_channels: values per latent.
        frame: samples between the frames of the first filter bank; a frame is twice as long.
        strides: how the frame rate goes down to the latent rate; ``frame`` times their product is
            the number of samples per latent.
        widths: channels at each rate, one more than ``strides``.
        blocks: residual blocks at each rate, in the encoder and in the decoder.
        expansion: hidden channels of a block over its width.
        kernel: taps of a block's convolution (odd); its dilation goes 1, 3, 9, 1, ...
        level: root mean square of the sounds meant, which the layers see as 1. Quiet recordings trained at level 1 need
            tiny weights, and one step of an optimizer is then a large change.
        latent: ``bounded`` by tanh, or the ``gaussian`` posterior of a VAE.
    """

    channels: int = 2
    sample_rate: int = 16000
    latent_channels: int = 32
    frame: int = 40
    strides: tuple[int, ...] = (4, 4)
    widths: tuple[int, ...] = (96, 192, 256)
    blocks: tuple[int, ...] = (2, 2, 2)
    expansion: int = 2
    kernel: int = 7
    level: float = 1.0
    latent: LatentKind = "bounded"

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.blocks) == len(self.strides) + 1:
            raise UserError(
                "widths and blocks have one entry more than strides, got "
                f"{len(self.widths)}, {len(self.blocks)} and {len(self.strides)}"
            )
        if self.kernel % 2 == 0:
            raise UserError(f"kernel must be odd, got {self.kernel}")
        if self.frame % 2:
            raise UserError(f"frame must be even, got {self.frame}")
        if min(self.channels, self.sample_rate, self.latent_channels, self.frame, *self.strides, *self.widths) < 1:
            raise UserError("every size must be at least 1")
        if not 0 < self.level <= 1:
            raise UserError(f"level is a root mean square in (0, 1], got {self.level}")
        if self.latent not in ("bounded", "gaussian"):
            raise UserError(f"latent is bounded or gaussian, got {self.latent}")

    @property
    def samples_per_latent(self) -> int:
        return self.frame * prod(self.strides)


def _blocks(config: AudioAutoencoderConfig, width: int, count: int) -> nn.Sequential:
    return nn.Sequential(
        *(
            Block(SoundMix(width, config.kernel, 3 ** (i % 3)), width, config.expansion, bias=False, floor=_FLOOR)
            for i in range(count)
        )
    )


class AudioAutoencoder(nn.Module):
    """Encode a waveform to latents and back; a :class:`~selfflow_tokenizers.codecs.SoundCodec`.

    Waveforms are float ``(B, channels, samples)`` in [-1, 1] with a multiple of
    ``config.samples_per_latent`` samples; latents are ``(B, latents, latent_channels)``, in (-1, 1) where bounded.
    """

    def __init__(self, config: AudioAutoencoderConfig) -> None:
        super().__init__()
        self.config = c = config
        self.latent_channels, self.channels = c.latent_channels, c.channels
        self.sample_rate = self.decoded_rate = c.sample_rate
        self.samples_per_latent = c.samples_per_latent
        taps = 2 * c.frame * c.channels
        stages = list(zip(c.widths, c.blocks, strict=True))
        self.analysis = nn.Linear(taps, c.widths[0], bias=False)
        self.down = nn.ModuleList(
            nn.Linear(s * a, b, bias=False) for s, a, b in zip(c.strides, c.widths, c.widths[1:], strict=False)
        )
        self.encoder = nn.ModuleList(_blocks(c, width, count) for width, count in stages)
        self.to_latents = nn.Linear(c.widths[-1], c.latent_channels, bias=False)
        # The variance alone has a bias: that of silence is not 1.
        gaussian = c.latent == "gaussian"
        self.to_log_variance = nn.Linear(c.widths[-1], c.latent_channels) if gaussian else None
        self.from_latents = nn.Linear(c.latent_channels, c.widths[-1], bias=False)
        self.decoder = nn.ModuleList(_blocks(c, width, count) for width, count in stages)
        self.up = nn.ModuleList(
            nn.Linear(b, s * a, bias=False) for s, a, b in zip(c.strides, c.widths, c.widths[1:], strict=False)
        )
        self.synthesis = nn.Linear(c.widths[0], taps, bias=False)

    def cut_frames(self, waveform: Tensor) -> Tensor:
        """Waveform ``(B, channels, samples)`` -> overlapping frames ``(B, samples / frame, channels * 2 * frame)`` at
        the level of 1.
        """
        half = self.config.frame // 2
        frames = F.pad(waveform / self.config.level, (half, half)).unfold(-1, 2 * self.config.frame, self.config.frame)
        return frames.permute(0, 2, 1, 3).flatten(2)

    def posterior(self, waveform: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean of the latents, and the logarithm of their variance where they are gaussian; see :meth:`encode`."""
        x = self.analysis(self.cut_frames(waveform))
        x = self.encoder[0](x)
        for stride, down, blocks in zip(self.config.strides, self.down, list(self.encoder)[1:], strict=True):
            x = blocks(down(x.unflatten(1, (-1, stride)).flatten(2)))
        if self.to_log_variance is None:
            return split_posterior(self.to_latents(x), "bounded")
        return split_posterior(torch.cat([self.to_latents(x), self.to_log_variance(x)], dim=-1), "gaussian")

    def encode(self, waveform: Tensor) -> Tensor:
        """Waveform ``(B, channels, samples)`` -> latents ``(B, samples / samples_per_latent, C)``, the mean where they
        are gaussian.
        """
        return mean_of(self.posterior(waveform))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents ``(B, n, C)`` -> waveform ``(B, channels, n * samples_per_latent)``, not clipped."""
        x = self.decoder[-1](self.from_latents(latents))
        ups = list(zip(self.config.strides, self.up, list(self.decoder)[:-1], strict=True))
        for stride, up, blocks in reversed(ups):
            x = blocks(up(x).unflatten(2, (stride, -1)).flatten(1, 2))
        frames = self.synthesis(x).unflatten(2, (self.config.channels, 2, self.config.frame))
        # Overlap-add: a frame's first half falls on the second half of the one before it.
        early, late = frames.unbind(3)
        halves = F.pad(early, (0, 0, 0, 0, 0, 1)) + F.pad(late, (0, 0, 0, 0, 1, 0))
        half = self.config.frame // 2
        return halves.transpose(1, 2).flatten(2)[..., half:-half] * self.config.level

    def forward(self, waveform: Tensor) -> Tensor:
        """Reconstruction of ``waveform``, same shape."""
        return self.decode(self.encode(waveform))

    @property
    def reach(self) -> int:
        """Latents before and after one beyond which nothing is seen: neither by a latent of the waveform, nor by a
        sample of the latents.
        """
        c = self.config
        # Half of an overlapping frame, and what grouping into strides may add at each rate.
        samples, step = 2.0 * c.frame, c.frame
        for blocks, stride in zip(c.blocks, (*c.strides, 1), strict=True):
            samples += sum(c.kernel // 2 * 3 ** (i % 3) for i in range(blocks)) * step
            step *= stride
            samples += step
        return ceil(samples / c.samples_per_latent)
